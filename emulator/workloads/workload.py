"""What a workload is: parameters, and what each vCPU does.

A workload is a frozen dataclass of parameters in a module of its own, named in the registry.  It
may bring shared arrays along (a compiled trace), made once by the supervisor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy.typing as npt

from emulator.config.page_cache import PageCacheConfig
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.vcpu import Vcpu

# Under virtual time, a workload without a pace of its own moves at this: what one real process
# reaches on will-it-scale's page_fault1 on the reference machine, 538 000 pages/s, rounded.
VIRTUAL_PACE_BYTES_PER_S: Final = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a workload's own figures are made from, when the run is over."""

    vcpus: int
    pages_touched: int
    operations: int
    violations: int
    elapsed_s: float


class Workload(Protocol):
    """A module in this folder.

    A class attribute `compared` names those of its figures that `compare` compares, each with what
    is better: `{"pages_per_s": "more"}`.
    """

    kind: ClassVar[str]

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Arrays that every vCPU has, copied into the guest's segment; ConfigError if it cannot.

        Called once, before the guest exists; `say` tells the user what takes long.
        """

    def rehearsal(self) -> "Workload":
        """The same code on little work: run once, in virtual time, so that all is compiled."""

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """The life of one vCPU; all blocks it allocated are freed at the end."""

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """The workload's own figures, units in the names."""


def pace_per_s(rate_bytes_per_s: float | None, unit_bytes: int, *, virtual: bool) -> float | None:
    """Units a second for one vCPU: the declared pace, flat out (None), or the virtual default."""
    if rate_bytes_per_s is not None:
        return rate_bytes_per_s / unit_bytes
    return VIRTUAL_PACE_BYTES_PER_S / unit_bytes if virtual else None


def files_of(scenario: Scenario, workload: Workload) -> tuple[list[int], PageCacheConfig]:
    """The sizes of a workload's files, pages, and how the guest caches them; none for most.

    ConfigError for a `[page_cache]` that has nothing to cache.
    """
    sizes = getattr(workload, "file_pages", None)
    if sizes is None and scenario.page_cache is not None:
        raise ConfigError(
            f"{scenario.where('page_cache')}: the workload {workload.kind} has no files; leave the "
            'table out, or use workload.kind = "files"'
        )
    return [] if sizes is None else list(sizes()), scenario.page_cache or PageCacheConfig()
