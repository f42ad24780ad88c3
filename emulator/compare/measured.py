"""One figure of one mechanism over all repeats, and its difference to another mechanism's."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Final

import msgspec

from emulator.compare.figures import ComparedFigure
from emulator.compare.statistics import Difference, Verdict, half_width_of, paired_difference
from emulator.published import measured_by
from emulator.summary import Summary

CONFIDENCE: Final = 0.95

Values = Sequence[float | None]


class FoundDifference(msgspec.Struct, frozen=True, kw_only=True):
    """`statistics.Difference`, with the ends of the interval and what they are of the baseline."""

    mean: float
    half_width: float | None
    least: float  # Of the single differences.
    most: float
    low: float | None
    high: float | None
    fraction: float | None  # Of the baseline's mean; None where that is 0.
    half_width_fraction: float | None
    floor: float
    pairs: int
    verdict: Verdict
    is_better: bool | None  # None where no difference was detected, or none is better.


class FigureOfMechanism(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one mechanism: the value of each repeat, their mean, least and largest.

    `half_width`: of the 95 % interval of this mean alone, for pictures; None for too few values.
    """

    values: list[float | None]
    mean: float | None
    low: float | None
    high: float | None
    half_width: float | None
    difference: FoundDifference | None = None  # None: the baseline, or not measured in a pair.


def value_of(summary: Summary, metric: str) -> float | None:
    """The figure as a number; None if it was not measured or is none."""
    found = measured_by(summary, metric)
    return float(found) if isinstance(found, int | float) else None


def pairs_of(baseline: Values, other: Values) -> list[tuple[float, float]]:
    """The repeats in which both were measured."""
    return [(x, y) for x, y in zip(baseline, other, strict=True) if x is not None and y is not None]


def figure_of(values: Values, difference: FoundDifference | None) -> FigureOfMechanism:
    """The values of all repeats, put together."""
    measured = [value for value in values if value is not None]
    return FigureOfMechanism(
        values=list(values),
        mean=fmean(measured) if measured else None,
        low=min(measured, default=None),
        high=max(measured, default=None),
        half_width=half_width_of(measured, CONFIDENCE),
        difference=difference,
    )


def difference_of(
    figure: ComparedFigure, pairs: Sequence[tuple[float, float]], confidence: float
) -> FoundDifference | None:
    """The difference of `(baseline, other)` pairs; None without a pair."""
    if not pairs:
        return None
    baseline, other = zip(*pairs, strict=True)
    found: Difference = paired_difference(
        baseline, other, confidence=confidence, floor_fraction=figure.floor_fraction
    )
    of, half = abs(fmean(baseline)), found.half_width
    judged = found.verdict in ("less", "more") and figure.better != "neither"
    return FoundDifference(
        **asdict(found),
        low=None if half is None else found.mean - half,
        high=None if half is None else found.mean + half,
        fraction=found.mean / of if of else None,
        half_width_fraction=half / of if of and half is not None else None,
        is_better=found.verdict == figure.better if judged else None,
    )
