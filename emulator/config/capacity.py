"""`[capacity]`: the host whose room is counted from the footprints that a run records."""

from typing import Final

import msgspec

RESAMPLES: Final = 10_000
PROBABILITIES: Final = (0.01, 0.001)
BATCHES: Final = 100  # Resamples are made, and drawn again for the intervals, in so many parts.
_RESAMPLES_MAX: Final = 1_000_000
_EXPECTED_MIN: Final = 10


class CapacityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of recorded footprints.

    `host`: the memory that it has for guests.  `probabilities`: of swapping, that must not be
    reached.  `resamples`: how often a host full of guests is drawn.  `after`: what was recorded
    before is left out; a guest that has just started holds little, and nobody starts again in
    every period.
    """

    host_bytes: int
    probabilities: tuple[float, ...] = PROBABILITIES
    resamples: int = RESAMPLES
    after_s: float = 0.0

    def __post_init__(self) -> None:
        if self.host_bytes <= 0:
            raise ValueError("host: must be above 0")
        if not self.probabilities:
            raise ValueError("probabilities: none given; use 0.01 or the like")
        for probability in self.probabilities:
            if not 0 < probability < 1:
                raise ValueError(
                    f"probabilities: {probability:g} is not between 0 and 1, both excluded; 1 % "
                    "is 0.01"
                )
        if not BATCHES <= self.resamples <= _RESAMPLES_MAX or self.resamples % BATCHES:
            raise ValueError(
                f"resamples: {self.resamples} will not do; use a multiple of {BATCHES} up to "
                f"{_RESAMPLES_MAX}"
            )
        least = min(self.probabilities)
        needed = -(-round(_EXPECTED_MIN / least) // BATCHES) * BATCHES
        if self.resamples < needed:
            raise ValueError(
                f"resamples: {self.resamples} are too few to see a probability of {least:g}; use "
                f"{needed} or more"
            )
        if self.after_s < 0:
            raise ValueError("after: a time cannot be below 0")
