"""Intervals against tables and hand-worked values, and both kinds of error by simulation."""

import math
from statistics import fmean

import numpy as np
import pytest

from emulator.compare.statistics import (
    each_of,
    half_width_of,
    paired_difference,
    t_probability,
    t_quantile,
    widths_per_spread,
)


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [  # Two-sided values of Student's t as printed in tables.
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 4, 2.776),
        (0.95, 9, 2.262),
        (0.95, 30, 2.042),
        (0.95, 120, 1.980),
        (0.99, 1, 63.657),
        (0.99, 9, 3.250),
        (0.999, 2, 31.599),
        (0.999, 5, 6.869),
        (0.5, 3, 0.765),
    ],
)
def test_quantiles_are_those_of_the_tables(
    confidence: float, freedom: int, quantile: float
) -> None:
    assert t_quantile(confidence, freedom) == pytest.approx(quantile, abs=0.0006)


def test_probabilities_that_have_a_closed_form() -> None:
    assert t_probability(1.0, 1) == pytest.approx(0.5)  # Cauchy: 2 / pi * atan(t).
    assert t_probability(2.0, 1) == pytest.approx(2 / math.pi * math.atan(2.0))
    assert t_probability(1.0, 2) == pytest.approx(1 / math.sqrt(3))  # t / sqrt(2 + t * t).
    assert t_probability(1.96, 100_000) == pytest.approx(0.95, abs=1e-4)  # Nearly normal.


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 8, 60])
@pytest.mark.parametrize("confidence", [0.2, 0.95, 0.9999])
def test_the_quantile_is_the_inverse_of_the_probability(confidence: float, freedom: int) -> None:
    assert t_probability(t_quantile(confidence, freedom), freedom) == pytest.approx(confidence)


@pytest.mark.parametrize(("confidence", "freedom"), [(0.0, 4), (1.0, 4), (0.95, 0)])
def test_no_quantile_where_there_is_none(confidence: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(confidence, freedom)


def test_a_hand_worked_difference() -> None:
    # Differences 2, 4, 3, 5, 1: mean 3, variance 10 / 4, half 2.776 * sqrt(2.5 / 5) = 1.963.
    found = paired_difference(
        [10.0, 20.0, 30.0, 40.0, 50.0],
        [12.0, 24.0, 33.0, 45.0, 51.0],
        confidence=0.95,
        floor_fraction=0.01,
    )
    assert found.mean == 3.0
    assert found.half_width == pytest.approx(1.963, abs=0.001)
    assert found.floor == pytest.approx(0.3)  # 1 % of the baseline's mean, 30.
    assert found.pairs == 5
    assert found.verdict == "more"


def test_pairing_takes_out_what_both_of_a_pair_share() -> None:
    baseline = [100.0, 250.0, 40.0, 900.0]
    other = [x - 5.0 + shift for x, shift in zip(baseline, (0.1, -0.1, 0.1, -0.1), strict=True)]
    found = paired_difference(baseline, other, confidence=0.95, floor_fraction=0.01)
    assert found.verdict == "less"
    unpaired = half_width_of(baseline, 0.95)
    assert unpaired is not None and found.half_width is not None
    assert found.half_width < unpaired / 1000


@pytest.mark.parametrize(
    ("differences", "floor_fraction", "verdict"),
    [
        ([3.0, -3.0, 1.0, -1.0], 0.0, "no difference detected"),  # Spans zero.
        ([0.5, 0.5, 0.6, 0.4], 0.01, "no difference detected"),  # Stays under the floor of 1.
        ([1.4, 1.6, 0.2, 2.8], 0.01, "no difference detected"),  # Reaches below the floor.
        ([5.0, 5.1, 4.9, 5.0], 0.01, "more"),
        ([-5.0, -5.1, -4.9, -5.0], 0.01, "less"),
        ([-5.0, -5.1, -4.9, -5.0], 0.06, "no difference detected"),
        ([7.0, 7.0], 0.01, "more"),  # The same in every pair.
        ([0.0, 0.0], 0.0, "no difference detected"),
        ([7.0, 8.0], 0.01, "too few pairs"),
        ([1000.0], 0.01, "too few pairs"),
    ],
)
def test_verdicts(differences: list[float], floor_fraction: float, verdict: str) -> None:
    baseline = [100.0] * len(differences)
    other = [x + d for x, d in zip(baseline, differences, strict=True)]
    found = paired_difference(baseline, other, confidence=0.95, floor_fraction=floor_fraction)
    assert found.verdict == verdict
    assert (found.half_width is None) == (verdict == "too few pairs")
    assert found.least == pytest.approx(min(differences))
    assert found.most == pytest.approx(max(differences))


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([], [], confidence=0.95, floor_fraction=0.0)
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0], confidence=0.95, floor_fraction=0.0)


def test_the_width_of_an_interval_in_spreads() -> None:
    assert widths_per_spread(0.95, 2) == pytest.approx(12.706 / math.sqrt(2), abs=0.001)
    assert widths_per_spread(0.95, 10) == pytest.approx(2.262 / math.sqrt(10), abs=0.001)


def test_all_intervals_together_have_the_confidence() -> None:
    assert each_of(0.95, 1) == pytest.approx(0.95)
    assert each_of(0.95, 10) == pytest.approx(0.995)
    assert each_of(0.95, 0) == pytest.approx(0.95)


@pytest.mark.parametrize("pairs", [3, 5, 12])
def test_intervals_cover_the_truth_as_often_as_they_say(pairs: int) -> None:
    random = np.random.default_rng(pairs)
    trials, covered = 4000, 0
    for _ in range(trials):
        shared = random.normal(1000.0, 300.0, pairs)  # Seeds and drift: common to a pair.
        baseline = shared + random.normal(0.0, 5.0, pairs)
        other = shared + 7.0 + random.normal(0.0, 5.0, pairs)
        found = paired_difference(
            baseline.tolist(), other.tolist(), confidence=0.95, floor_fraction=0.0
        )
        assert found.half_width is not None
        covered += abs(found.mean - 7.0) <= found.half_width
    # Of 4000 at 95 %, the count's standard deviation is 0.34 %.
    assert covered / trials == pytest.approx(0.95, abs=0.012)


def _detected(random: np.random.Generator, effect: float, confidence: float, floor: float) -> bool:
    """Ten pairs, 1 % of noise in each run."""
    baseline = 1000.0 * (1 + random.normal(0.0, 0.01, 10))
    other = 1000.0 * (1 + effect + random.normal(0.0, 0.01, 10))
    found = paired_difference(
        baseline.tolist(), other.tolist(), confidence=confidence, floor_fraction=floor
    )
    return found.verdict in ("less", "more")


def test_error_of_the_first_kind_a_mechanism_is_not_told_apart_from_itself() -> None:
    random = np.random.default_rng(1)
    figures, trials = 12, 1000
    confidence = each_of(0.95, figures)
    wrong = [
        any(_detected(random, 0.0, confidence, 0.0) for _ in range(figures)) for _ in range(trials)
    ]
    assert 0.02 < fmean(wrong) < 0.07  # Comparisons in which anything at all sticks out.
    floored = [_detected(random, 0.0, confidence, 0.01) for _ in range(trials)]
    assert fmean(floored) < 0.002


def test_a_bias_as_large_as_the_floor_is_not_taken_for_a_difference() -> None:
    random = np.random.default_rng(2)
    assert fmean(_detected(random, 0.01, 0.95, 0.01) for _ in range(2000)) < 0.035


def test_error_of_the_second_kind_what_differs_by_more_than_the_noise_is_found() -> None:
    random = np.random.default_rng(3)
    confidence = each_of(0.95, 12)
    assert fmean(_detected(random, 0.05, confidence, 0.01) for _ in range(1000)) > 0.99
    assert fmean(_detected(random, -0.05, confidence, 0.01) for _ in range(1000)) > 0.99
