"""`[guests]`: how many guests a host has."""

from typing import Final

import msgspec

GUESTS_MAX: Final = 64


class GuestsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Guests that are alike but for their seeds; the first has the scenario's own.

    All are up from the beginning to the end of the run.
    `apart`: how much later each one's workload begins than that of the guest before it.
    """

    count: int = 1
    apart_s: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= GUESTS_MAX:
            raise ValueError(f"count: {self.count} will not do; use 1 to {GUESTS_MAX}")
        if self.apart_s < 0:
            raise ValueError("apart: a time cannot be below 0")

    def start_s(self, index: int) -> float:
        """When the workload of this guest begins, of the run."""
        return index * self.apart_s
