"""What sources published, beside what a comparison measured.

Differences to one mechanism stand in a table, two of them or more: what a source found, and what
each mechanism has here, with its interval.  All else stands in lines.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from emulator.compare.comparison import Comparison
from emulator.compare.measured import FigureOfMechanism
from emulator.compare.published import PublishedFigure
from emulator.report.comparison_words import (
    PLUS_MINUS,
    difference_text,
    value_text,
    verdict_text,
)
from emulator.report.published import measured_words, missing_words
from emulator.report.wording import NOT_MEASURED

_ROWS_MIN: Final = 2


class PublishedTable(NamedTuple):
    """Differences to `against`.

    mechanisms:  the labels of the columns
    rows:        a figure of a source, and what each mechanism has: "" for one that it is not about
    """

    against: str
    mechanisms: list[str]
    rows: list[tuple[PublishedFigure, list[str]]]

    @property
    def sources(self) -> list[str]:
        """Each once, in the order of the rows."""
        return list(dict.fromkeys(figure.published.source for figure, _ in self.rows))


def published_tables(comparison: Comparison, plus_minus: str = PLUS_MINUS) -> list[PublishedTable]:
    """The tables, one for each mechanism that differences are to."""
    found: dict[str, list[PublishedFigure]] = {}
    for figure in comparison.published:
        if figure.published.against is not None and figure.measured:
            found.setdefault(figure.published.against, []).append(figure)
    return [
        _table(comparison, against, figures, plus_minus)
        for against, figures in found.items()
        if len(figures) >= _ROWS_MIN
    ]


def _table(
    comparison: Comparison, against: str, figures: Sequence[PublishedFigure], plus_minus: str
) -> PublishedTable:
    about = {one.mechanism for figure in figures for one in figure.measured}
    labels = [one.label for one in comparison.mechanisms if one.label in about]
    rows = []
    for figure in figures:
        cells = {one.mechanism: _cell(figure, one.found, plus_minus) for one in figure.measured}
        rows.append((figure, [cells.get(label, "") for label in labels]))
    return PublishedTable(against, labels, rows)


def _cell(figure: PublishedFigure, found: FigureOfMechanism, plus_minus: str) -> str:
    """As in the tables of all figures: in brackets where no difference was detected."""
    if found.difference is None:
        return NOT_MEASURED
    text = difference_text(figure.published.metric or "", found.difference, plus_minus)
    return f"({text})" if found.difference.verdict == "no difference detected" else text


def published_lines(
    comparison: Comparison,
    plus_minus: str = PLUS_MINUS,
    tables: Sequence[PublishedTable] = (),
) -> list[tuple[str, list[str]]]:
    """What sources published, each with a line for each mechanism that it is about; without what
    stands in `tables`."""
    shown = [figure for table in tables for figure, _ in table.rows]
    return [
        (figure.published.what, _lines(figure, plus_minus))
        for figure in comparison.published
        if figure not in shown
    ]


def _lines(figure: PublishedFigure, plus_minus: str) -> list[str]:
    if figure.why:
        return [missing_words(figure.published, figure.why)]
    lines = []
    for one in figure.measured:
        words = _measured_text(figure, one.found, plus_minus)
        lines.append(f"{one.mechanism}: {measured_words(words, figure.published)}")
    return lines


def _measured_text(figure: PublishedFigure, found: FigureOfMechanism, plus_minus: str) -> str:
    metric = figure.published.metric or ""
    if figure.published.against is not None:
        difference = found.difference
        if difference is None:
            return NOT_MEASURED
        return verdict_text(metric, difference, plus_minus)
    low, high = (value_text(metric, end) for end in (found.low, found.high))
    return NOT_MEASURED if found.mean is None else low if low == high else f"{low} to {high}"
