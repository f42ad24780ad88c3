"""The figures that sources published, beside those of a comparison."""

from collections.abc import Callable, Sequence

import msgspec

from emulator.compare.candidate import Candidate
from emulator.compare.figures import ComparedFigure
from emulator.compare.measured import (
    FigureOfMechanism,
    Values,
    difference_of,
    figure_of,
    pairs_of,
)
from emulator.config.published import Published
from emulator.config.scenario import Scenario
from emulator.published import is_under, mechanism_text, why_not


class MeasuredBeside(msgspec.Struct, frozen=True, kw_only=True):
    """What a mechanism of the comparison, by its label, has where a source has its figure."""

    mechanism: str
    found: FigureOfMechanism


class PublishedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a source, beside the mechanisms that it is about; without one, `why`."""

    published: Published
    measured: list[MeasuredBeside] = []
    why: str = ""


def beside_comparison(
    scenario: Scenario,
    candidates: Sequence[Candidate],
    values_of: Callable[[int, str], Values],
    figures: Sequence[ComparedFigure],
    confidence: float,
) -> list[PublishedFigure]:
    """The scenario's published figures in their order.

    `values_of`: of a candidate's number, for a metric; `confidence`: of each interval.
    """
    return [
        _beside(
            published,
            scenario,
            candidates,
            values_of,
            next(
                (one for one in figures if one.metric == published.metric),
                ComparedFigure(metric=published.metric or ""),
            ),
            confidence,
        )
        for published in scenario.published
    ]


def _beside(
    published: Published,
    scenario: Scenario,
    candidates: Sequence[Candidate],
    values_of: Callable[[int, str], Values],
    figure: ComparedFigure,
    confidence: float,
) -> PublishedFigure:
    why, metric = why_not(published, scenario.guest.vcpus), published.metric
    if why or metric is None:
        return PublishedFigure(published=published, why=why)
    numbers = [n for n, one in enumerate(candidates) if is_under(published, one.mechanism)]
    if not numbers:
        return PublishedFigure(
            published=published, why=f"{mechanism_text(published)} is not compared"
        )
    against = None
    if published.against is not None:
        names = [candidate.mechanism.name for candidate in candidates]
        if published.against not in names:
            return PublishedFigure(published=published, why=f"{published.against} is not compared")
        against = values_of(names.index(published.against), metric)
    measured = []
    for number in numbers:
        values = values_of(number, metric)
        difference = None
        if against is not None:
            difference = difference_of(figure, pairs_of(against, values), confidence)
        measured.append(
            MeasuredBeside(mechanism=candidates[number].label, found=figure_of(values, difference))
        )
    return PublishedFigure(published=published, measured=measured)
