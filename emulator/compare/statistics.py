"""Paired differences with intervals, and when a difference counts.

Runs are compared in pairs: both of a pair have the same seed and workload and lie next to each
other in time, so that what a machine or a seed does to both cancels.  The mean of the differences
has Student's t interval (Gosset 1908), which assumes that differences, not figures, are normal.

A difference counts only if its whole interval lies beyond the noise floor: an interval that spans
zero does not, nor does one that stays under the floor or reaches below it.  The floor stands for
what repeating does not average out, such as the resolution of a histogram.

Many figures are looked at together.  Each interval is made wide enough that *all* those of one
mechanism hold with the confidence asked for (Bonferroni), so that a mechanism compared with itself
is not told apart from itself because something always sticks out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Final, Literal

Verdict = Literal["less", "more", "no difference detected", "too few pairs"]

#: An interval of two pairs that differ is some 13 standard errors wide, and 127 for ten figures
#: together: it says nothing.
PAIRS_MIN: Final = 3

_BISECTIONS: Final = 200  # Far more than a float has bits.


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Other minus baseline: `mean` plus or minus `half_width`, in the unit of the figure.

    `half_width` is None for fewer than PAIRS_MIN pairs, which have no interval, unless several
    agree; it is 0 where all do.  `least`, `most`: of the single differences.
    """

    mean: float
    half_width: float | None
    least: float
    most: float
    floor: float
    pairs: int
    verdict: Verdict


def t_probability(t: float, freedom: int) -> float:
    """The probability that Student's t with `freedom` degrees lies between -t and t.

    Exact for whole degrees: Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).
    """
    return _probability_of_angle(math.atan2(t, math.sqrt(freedom)), freedom)


@cache
def t_quantile(confidence: float, freedom: int) -> float:
    """The t for which `t_probability` is `confidence` (0 to 1, both excluded): 2.776 for 0.95, 4.

    Raises ValueError for a confidence or a number of degrees that there is no quantile for.
    """
    if not 0 < confidence < 1 or freedom < 1:
        raise ValueError(f"no quantile for confidence {confidence}, {freedom} degrees of freedom")
    low, high = 0.0, math.pi / 2  # Of the angle, in which the probability only grows.
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _probability_of_angle(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _probability_of_angle(theta: float, freedom: int) -> float:
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(2 if odd else 1, freedom, 2):
        total += term
        term *= k / (k + 1) * cosine * cosine
    return (theta + sine * total) * 2 / math.pi if odd else sine * total


def each_of(confidence: float, intervals: int) -> float:
    """The confidence of each of so many intervals that gives `confidence` for all together."""
    return 1 - (1 - confidence) / max(1, intervals)


def widths_per_spread(confidence: float, pairs: int) -> float:
    """Half of an interval of so many pairs (2 or more), in standard deviations of a difference."""
    return t_quantile(confidence, pairs - 1) / math.sqrt(pairs)


def half_width_of(values: Sequence[float], confidence: float) -> float | None:
    """Half of the t interval of the mean; None for fewer than PAIRS_MIN values, unless several
    agree."""
    if len(values) < PAIRS_MIN:
        return 0.0 if len(values) > 1 and len(set(values)) == 1 else None
    return widths_per_spread(confidence, len(values)) * stdev(values)


def paired_difference(
    baseline: Sequence[float],
    other: Sequence[float],
    *,
    confidence: float,
    floor_fraction: float,
) -> Difference:
    """`other` minus `baseline`, pair by pair.

    `confidence`: of this interval, above 0 and below 1.  `floor_fraction`: the noise floor as a
    fraction of the baseline's mean, 0 or more.
    Raises ValueError without a pair, or where one sequence is longer.
    """
    if not baseline:
        raise ValueError("no pairs to compare")
    differences = [y - x for x, y in zip(baseline, other, strict=True)]
    mean, half_width = fmean(differences), half_width_of(differences, confidence)
    floor = floor_fraction * abs(fmean(baseline))
    return Difference(
        mean=mean,
        half_width=half_width,
        least=min(differences),
        most=max(differences),
        floor=floor,
        pairs=len(differences),
        verdict=_verdict(mean, half_width, floor),
    )


def _verdict(mean: float, half_width: float | None, floor: float) -> Verdict:
    if half_width is None:
        return "too few pairs"
    if abs(mean) - half_width <= floor:
        return "no difference detected"
    return "less" if mean < 0 else "more"
