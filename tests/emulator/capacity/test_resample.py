"""How many guests fit: against the binomial distribution, by hand, and by what must always hold."""

from math import comb
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.capacity.footprints import Footprints, lay_footprints
from emulator.capacity.resample import GUESTS_MAX, Capacity, find_capacity
from emulator.config.capacity import CapacityConfig
from emulator.errors import ConfigError

MIB = 1 << 20


def two_levels(high_points: int, points: int = 100, low: float = 1, high: float = 3) -> Footprints:
    """A guest that holds `high` MiB for so many points of its period, and else `low`."""
    sizes = [high * MIB if at < high_points else low * MIB for at in range(points)]
    return lay_footprints([(list(range(points + 1)), [*sizes, sizes[0]])])


def exceeding_exactly(guests: int, host: int, duty: float) -> float:
    """P(guests + 2 B > host) with B of the binomial distribution: each guest is high or low."""
    return sum(
        comb(guests, k) * duty**k * (1 - duty) ** (guests - k)
        for k in range(guests + 1)
        if guests + 2 * k > host
    )


def capacity(footprints: Footprints, host: float, *, seed: int = 1, **options: object) -> Capacity:
    config = CapacityConfig(host_bytes=int(host * MIB), **options)  # type: ignore[arg-type]
    return find_capacity(footprints, config, seed=seed)


def test_the_sum_of_two_level_curves_is_binomial() -> None:
    found = capacity(two_levels(10), 30)
    for guests, probability in enumerate(found.exceeding, start=1):
        exactly = exceeding_exactly(guests, 30, 0.1)
        # Ten standard errors of 10,000 resamples, each counted as one observation only.
        assert probability == pytest.approx(exactly, abs=10 * (exactly / 10_000) ** 0.5 + 1e-9)
    at_17 = exceeding_exactly(17, 30, 0.1)
    assert found.exceeding[16] == pytest.approx(at_17, rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_neither_too_many_nor_too_few_fit(seed: int) -> None:
    """One error would be a number that swaps too often, the other one that wastes the host."""
    found = capacity(two_levels(10), 30, seed=seed)
    for fit in found.fits:
        n = next(g for g in range(1, 99) if exceeding_exactly(g + 1, 30, 0.1) >= fit.probability)
        assert fit.fits.guests == n
        assert fit.fits.low <= n <= fit.fits.high
        assert fit.exceeding < fit.probability <= fit.exceeding_next


def test_the_precision_is_that_of_repeating_it() -> None:
    fits = [capacity(two_levels(10), 30, seed=seed).fits[1] for seed in range(8)]
    assert len({fit.fits.guests for fit in fits}) == 1
    estimates = [fit.exceeding for fit in fits]
    said = np.mean([fit.relative_error or 0 for fit in fits])
    assert np.std(estimates, ddof=1) / np.mean(estimates) == pytest.approx(said, rel=0.6)
    needed = fits[0].resamples_needed
    assert needed == np.ceil(10_000 * ((fits[0].relative_error or 0) / 0.1) ** 2)


def test_what_never_changes_fits_as_often_as_it_divides_the_host() -> None:
    found = capacity(two_levels(0), 10.5)
    assert (found.guests_by_mean, found.guests_by_peak) == (10, 10)
    for fit in found.fits:
        assert (fit.fits.guests, fit.fits.low, fit.fits.high) == (10, 10, 10)
        assert (fit.exceeding, fit.exceeding_next, fit.any_excess) == (0.0, 1.0, 0.0)
        assert fit.relative_error is None and fit.resamples_needed is None
        assert fit.sum_bytes is not None
        assert set(msgspec.structs.astuple(fit.sum_bytes)) == {10.0 * MIB}


def test_a_host_that_is_exactly_full_does_not_swap() -> None:
    assert capacity(two_levels(0), 10).fits[0].fits.guests == 10


def test_one_guest_over_a_whole_period_is_its_own_duty_whatever_the_phase() -> None:
    found = capacity(two_levels(10), 2)
    assert found.exceeding[0] == 0.1
    assert found.any_excess[0] == 1.0  # It comes in every period.
    assert [fit.fits.guests for fit in found.fits] == [0, 0]
    assert found.fits[0].sum_bytes is None
    loose = capacity(two_levels(10), 2, probabilities=(0.15,))
    assert loose.fits[0].fits.guests == 1
    assert loose.fits[0].fits_whole_periods.guests == 0


def test_tail_and_mean_of_the_sum() -> None:
    fit = capacity(two_levels(10), 30).fits[0]
    n, held = fit.fits.guests, fit.sum_bytes
    assert held is not None
    assert held.mean == pytest.approx(n * 1.2 * MIB, rel=0.01)
    # Its probability to exceed the host is below 1 %, and so its p99 is not above it.
    assert held.p99 <= 30 * MIB < held.max
    assert held.p99 <= held.p999 <= held.max <= 3 * n * MIB


def test_recordings_of_different_periods_repeat_each_on_its_own() -> None:
    long = (list(range(101)), [4.0 * MIB] * 10 + [0.0] * 90 + [4.0 * MIB])
    short = (list(range(21)), [4.0 * MIB] * 10 + [0.0] * 10 + [4.0 * MIB])
    found = capacity(lay_footprints([long, short]), 3)
    # One guest is the first, a tenth of the time high, or the second, half of it.
    assert found.exceeding[0] == pytest.approx((0.1 + 0.5) / 2, abs=0.01)


def test_few_recordings_that_differ_are_an_uncertainty_that_resampling_cannot_remove() -> None:
    times = list(range(11))
    flat = [(times, [size * MIB] * 11) for size in (1.0, 3.0)]
    for resamples in (10_000, 40_000):
        fits = capacity(lay_footprints(flat), 60, resamples=resamples).fits[0].fits
        # If both drawn are the smaller one, 60 fit; if both are the larger one, 20.
        assert (fits.low, fits.high) == (20, 60)
    far = [(times, [size * MIB] * 11) for size in (1.0, 10.0)]
    fits = capacity(lay_footprints(far), 60).fits[0].fits
    assert (fits.low, fits.high) == (6, 60)
    alike = capacity(lay_footprints(flat[:1] * 4), 60).fits[0].fits
    assert (alike.low, alike.guests, alike.high) == (60, 60, 60)


def flat_runs(*runs: list[float]) -> Footprints:
    """Runs of guests that never change, by what each holds, MiB."""
    times = list(range(11))
    recordings = [(times, [size * MIB] * 11) for run in runs for size in run]
    of = [number for number, run in enumerate(runs) for _ in run]
    return lay_footprints(recordings, runs=of)


def test_guests_of_one_run_are_drawn_again_together() -> None:
    """All of a run are alike, as by a manager: of both runs drawn, each is the small one half of
    the time.  Drawn guest by guest, all eight would be alike once in 256 times."""
    host = 600
    coupled = capacity(flat_runs([1.0] * 4, [3.0] * 4), host).fits[0].fits
    assert (coupled.low, coupled.high) == (host // 3, host)
    alone = capacity(flat_runs(*([size] for size in [1.0] * 4 + [3.0] * 4)), host).fits[0].fits
    assert host // 3 < alone.low < coupled.guests < alone.high < host


def test_runs_that_all_hold_the_same_leave_no_doubt_however_their_guests_differ() -> None:
    """A manager that gives one guest what it takes from the other: every run is 1 and 3 MiB."""
    coupled = capacity(flat_runs(*([[1.0, 3.0]] * 4)), 600).fits[0].fits
    alone = capacity(flat_runs(*([[1.0], [3.0]] * 4)), 600).fits[0].fits
    # What a batch's own resamples differ by stays.
    assert coupled.high - coupled.low < (alone.high - alone.low) / 4
    assert coupled.low <= coupled.guests <= coupled.high


def test_the_guests_of_a_single_run_cannot_be_drawn_again() -> None:
    found = capacity(flat_runs([1.0, 3.0]), 60)
    assert (found.recordings, found.runs) == (2, 1)
    fits = found.fits[0].fits
    assert fits.high - fits.low <= 1  # Of the resampling alone.


@given(
    sizes=st.lists(st.integers(0, 40), min_size=2, max_size=12).filter(any),
    host=st.integers(41, 200),
    more=st.integers(0, 100),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=15, deadline=None)
def test_more_guests_exceed_more_often_and_more_memory_less(
    sizes: list[int], host: int, more: int, seed: int
) -> None:
    times = [float(at) for at in range(len(sizes) + 1)]
    footprints = lay_footprints([(times, [size * float(MIB) for size in [*sizes, sizes[0]]])])
    options = {"probabilities": (0.1, 0.3), "resamples": 100, "seed": seed}
    small = capacity(footprints, host, **options)  # type: ignore[arg-type]
    large = capacity(footprints, host + more, **options)  # type: ignore[arg-type]
    for found in (small, large):
        assert found.exceeding == sorted(found.exceeding)
        assert found.any_excess == sorted(found.any_excess)
        assert all(a <= b for a, b in zip(found.exceeding, found.any_excess, strict=True))
        assert found.exceeding[-1] > 0.3
        tight, loose = found.fits
        assert found.guests_by_peak <= tight.fits.guests <= loose.fits.guests
        assert tight.fits_whole_periods.guests <= tight.fits.guests
        assert tight.fits.low <= tight.fits.guests <= tight.fits.high
    pairs = zip(small.exceeding, large.exceeding, strict=False)
    assert all(less_memory >= more_memory for less_memory, more_memory in pairs)
    for few, many in zip(small.fits, large.fits, strict=True):
        assert few.fits.guests <= many.fits.guests


def test_the_same_seed_gives_the_same_answer() -> None:
    first, same, other = (capacity(two_levels(10), 30, seed=seed) for seed in (3, 3, 4))
    assert first == same
    assert first.exceeding != other.exceeding


@pytest.mark.parametrize(
    ("low", "host", "says"),
    [
        (2.0, 1.0, "host: 1MiB are less than the 2MiB that one guest holds on average"),
        (1e-5, 1.0, f"room for more than {GUESTS_MAX} guests"),
        (0.0, 1.0, "hold no memory"),
    ],
)
def test_a_host_that_cannot_be_answered_for_is_refused(low: float, host: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        capacity(two_levels(0, low=low), host)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"host_bytes": 0}, "host: must be above 0"),
        ({"probabilities": ()}, "probabilities: none given"),
        ({"probabilities": (0.01, 1.0)}, "probabilities: 1 is not between 0 and 1"),
        ({"probabilities": (0.0,)}, "probabilities: 0 is not between"),
        ({"probabilities": (1.5,)}, "1 % is 0.01"),
        ({"resamples": 10_050}, "multiple of 100"),
        ({"resamples": 1000}, "too few to see a probability of 0.001; use 10000 or more"),
        ({"after_s": -1.0}, "after"),
    ],
)
def test_what_is_asked_must_have_an_answer(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CapacityConfig(**{"host_bytes": MIB, **options})
