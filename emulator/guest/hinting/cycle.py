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
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep until `until_s`, or without end (None); a rung doorbell ends either."""

    until_s: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Report these isolated blocks: BATCH[n]."""

    batch: npt.NDArray[Any]


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
    """A file in `mechanisms/`, or a user's own."""

    name: ClassVar[str]

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """The mechanism's arrays in the guest's segment."""

    def hooks(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Any:
        """The state that the allocator's hooks work on, a NamedTuple over `shared_arrays`."""

    def start(self, mm: GuestMemory, actor: int) -> Cycle | None:
        """Begin on `mm`, whose `hooks` are this mechanism's; None: it never reports."""
