"""What a mechanism is: parameters, hooks into the allocator, and a cycle.

A mechanism is a frozen dataclass of parameters whose defaults are its source's constants.  It says
which shared arrays it needs, which hooks the allocator calls (`hooks`, see `hook_kernels`), and
starts a *cycle*: what the hinting task asks what to do next.

    Wait(until_s)    nothing to do before that time, or before a hook rings the doorbell
    Report(batch)    these blocks are isolated: have them reported, then call `drain`

A cycle neither awaits, sleeps nor reads a clock: time comes in as an argument.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from devices.memory.region import Layout
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep until `until_s`, or without end (None); a rung doorbell ends either."""

    until_s: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Report these isolated blocks: BATCH[n]."""

    batch: npt.NDArray[Any]


Decision = Wait | Report


def require_decision(decision: object, cycle: "Cycle") -> None:
    """Raise TypeError, with a note of the place as tracebacks have it, if `step` returned no
    decision."""
    if isinstance(decision, Wait | Report):
        return
    step: Any = getattr(cycle, "mechanism", cycle).step
    code = step.__func__.__code__
    error = TypeError(f"step() returned {decision!r}, which is neither Wait nor Report")
    error.add_note(f'  File "{code.co_filename}", line {code.co_firstlineno}, in step')
    raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What a mechanism may size its arrays by."""

    nr_pages: int
    nr_zones: int
    nr_cpus: int
    pageblock_order: int


class Cycle(Protocol):
    """One guest's run of a mechanism; used by the hinting task alone."""

    def step(self, now_s: float) -> Wait | Report:
        """Decide, and isolate what is to be reported."""

    def drain(self, reported: bool, now_s: float) -> None:
        """Put the blocks of the last `Report` back; `reported`: whether the host acknowledged."""


class Mechanism(Protocol):
    """A file in `mechanisms/`, or a user's own.  What it may have besides:

    capacity    the most blocks that a report of its holds (default 1): sizes the ring
    order       the smallest order that it reports (default: a pageblock's)
    rehearsal() -> Mechanism
                one of its class that reports a guest's first few frees: what is run once, small,
                so that all is compiled before a run that is measured
    figures(mm: GuestMemory) -> dict[str, int | float | None]
                what it counts of its own, shown as `hinting.mechanism` when the run has ended;
                units in the names (`_bytes`, `_s`), None for what was not measured
    """

    name: ClassVar[str]

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """The mechanism's arrays in the guest's segment."""

    def hooks(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Any:
        """The state that the allocator's hooks work on, a NamedTuple over `shared_arrays`."""

    def start(self, mm: GuestMemory, actor: int) -> Cycle | None:
        """Begin on `mm`, whose `hooks` are this mechanism's; None: it never reports."""


class Plain:
    """A mechanism without parameters that its steps must remember: derive from it, and define

        step(mm, actor, batch, now_s) -> Wait | Report
        drain(mm, actor, batch, reported, now_s)

    `batch`: BATCH[capacity], for the blocks of one report.  `state`: an instance of a class that
    names hooks (`with_hooks`), where there are any.
    """

    capacity: ClassVar[int] = 1
    state: ClassVar[Any] = NoHooks()

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """None."""
        return {}

    def hooks(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Any:
        """`state`."""
        return self.state

    def step(self, mm: GuestMemory, actor: int, batch: npt.NDArray[Any], now_s: float) -> Decision:
        """Decide, and isolate what is to be reported."""
        raise TypeError(f"{type(self).__name__} does not define step(mm, actor, batch, now_s)")

    def drain(
        self, mm: GuestMemory, actor: int, batch: npt.NDArray[Any], reported: bool, now_s: float
    ) -> None:
        """Put the blocks back."""
        raise TypeError(f"{type(self).__name__} does not define drain(mm, actor, batch, ...)")

    def start(self, mm: GuestMemory, actor: int) -> Cycle:
        """A cycle that calls the two."""
        return _PlainCycle(self, mm, actor)


class _PlainCycle:
    def __init__(self, mechanism: Plain, mm: GuestMemory, actor: int) -> None:
        self.mechanism = mechanism
        self._given = (mm, actor, np.zeros(mechanism.capacity, BATCH))

    def step(self, now_s: float) -> Decision:
        return self.mechanism.step(*self._given, now_s)

    def drain(self, reported: bool, now_s: float) -> None:
        self.mechanism.drain(*self._given, reported, now_s)
