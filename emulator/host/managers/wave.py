"""A triangular wave: down from the most to the least and up again, at an even pace.

As the first test of B. Singh's "[RFC][PATCH 2/3] Linux/Guest cooperative unmapped page cache
control" (October 2010) moved it, between 500 and 1500 MB; its period is not given there.
"""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Parameters; the default bounds are the mail's."""

    name: ClassVar[str] = "wave"
    least_bytes: int = 500 << 20
    most_bytes: int = 1500 << 20
    period_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_bytes <= self.most_bytes:
            raise ValueError(f"least: {self.least_bytes} is not between 0 and most")
        if self.period_s <= 0:
            raise ValueError("period: must be above 0")

    def decide(self, seen: Sight) -> int:
        """Begins at the most; is at the least in the middle of each period."""
        turn = seen.now_s / self.period_s % 1.0
        down = 2 * turn if turn < 0.5 else 2 * (1 - turn)
        return self.most_bytes - round(down * (self.most_bytes - self.least_bytes))
