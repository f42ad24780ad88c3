"""How many guests fit, as it stands in the summary of a run: `capacity.fits.0.guests`."""

import msgspec


class FitFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What fits with one of the probabilities of swapping that were asked for, in their order."""

    probability: float
    guests: int
    guests_low: int  # The 95 % interval.
    guests_high: int
    guests_whole_periods: int  # Where the probability is that of a period to have any excess.
    exceeding: float  # With so many guests, the part of the time in which the host has too little.


class CapacityFigures(msgspec.Struct, frozen=True, kw_only=True):
    """None and empty where `[capacity]` did not ask, or the run could not answer."""

    host_bytes: int | None = None
    recordings: int | None = None
    guest_mean_bytes: int | None = None
    guest_peak_bytes: int | None = None
    guests_by_mean: int | None = None
    guests_by_peak: int | None = None
    fits: list[FitFigures] = []
