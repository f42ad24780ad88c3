"""Keep what the guest has AVAILABLE within a band, by steps that are not too large.

    available > high    take away what is above the middle of the band, `step` of memory at most
    available < low     give back what is below it, likewise
    otherwise           leave it

Fractions are of the guest's memory.  It needs the guest's statistics, and waits until they come.
"""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Parameters."""

    name: ClassVar[str] = "band"
    low: float = 0.05
    high: float = 0.15
    step: float = 0.25  # the largest change of one decision
    least: float = 0.1  # what the guest keeps in any case

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low: {self.low} and high, {self.high}, must ascend within 0 and 1")
        if not 0 < self.step <= 1 or not 0 <= self.least <= 1:
            raise ValueError("step: must be above 0 and at most 1, and least within 0 and 1")

    def decide(self, seen: Sight) -> int | None:
        """As above."""
        available = seen.guest.get("available_bytes")
        if available is None:
            return None
        share = available / seen.memory_bytes
        if self.low <= share <= self.high:
            return None
        change = (self.low + self.high) / 2 - share
        change = max(-self.step, min(self.step, change))
        kept = seen.kept_bytes + round(change * seen.memory_bytes)
        return min(max(kept, round(self.least * seen.memory_bytes)), seen.memory_bytes)
