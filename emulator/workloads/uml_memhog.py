"""uml_memhog: memhog for a real Linux guest, with its balloon inflated, deflated and run out of.

The guest is told by its console what to do (`emulator/uml`), so that this holds parameters only.
It fills a fraction of its free memory (a file in a tmpfs) and removes it, again and again; then the
balloon's target is changed, once in each direction.  A file that it keeps is checked in the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.vcpu import Vcpu
from emulator.workloads.workload import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class UmlMemhog:
    """Parameters."""

    kind: ClassVar[str] = "uml_memhog"
    fraction: float = 0.85  # of what is free before each fill
    iterations: int = 3
    idle_s: float = 6.0  # after each free: two passes of the guest's hinting, 2 s apart
    delay_s: float = 7.0  # before the first: what was free at boot is reported meanwhile
    keep_bytes: int = 8 << 20  # in the file that no discard may harm
    balloon_bytes: int = 64 << 20  # taken from the guest, and given back; 0: the balloon rests
    oom: bool = False  # Fill more than is free while the balloon holds half of it, too.

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction: {self.fraction} is not between 0 and 1")
        if not 1 <= self.iterations <= 20:
            raise ValueError(f"iterations: {self.iterations} is not one of 1 to 20")
        if not 1 << 20 <= self.keep_bytes <= 1 << 30:
            raise ValueError("keep: use 1MiB to 1GiB")
        if self.balloon_bytes < 0:
            raise ValueError("balloon: cannot be below 0")
        if self.idle_s < 0 or self.delay_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Not for an emulated guest: ConfigError."""
        raise ConfigError(
            f"{scenario.where('workload')}.kind: {self.kind} is for a real Linux guest; "
            f"use --launcher uml, or the workload memhog"
        )

    def rehearsal(self) -> "UmlMemhog":
        """Nothing is compiled for it."""
        return self

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing: `prepare` has refused."""

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """Nothing: the run of the real guest has its own."""
        return {}
