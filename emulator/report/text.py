"""The end of a run on standard output: question, answer, curve, figures, expectations.

It is laid out for 80 columns and looks the same in a pipe, only without colour: lines are built
here, not by a table widget, so that none is padded and none is cut.
"""

import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from emulator.capacity.capacities import CapacityOf
from emulator.config.scenario import Scenario
from emulator.published import Beside, beside_run
from emulator.report.answer import answer
from emulator.report.capacity_words import WIDTH, capacity_lines
from emulator.report.expectations import expectation_words
from emulator.report.guests import guest_rows
from emulator.report.published import beside_words
from emulator.report.sparkline import ASCII_BLOCKS, BLOCKS, resample, sparkline
from emulator.report.tables import Figure, FigureTable, figure_tables, setup_words
from emulator.report.wording import NOT_MEASURED, count_text, duration_text, size_text
from emulator.summary import ExpectationResult, Phase, SeriesRow, Summary

_WIDTH_MAX: Final = 100
_TWO_COLUMNS_MIN: Final = 72
_GAP: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def render_summary(
    summary: Summary,
    scenario: Scenario,
    expectations: Sequence[ExpectationResult],
    console: Console,
    *,
    series: Sequence[SeriesRow] = (),
    folder: Path | None = None,
    capacities: Sequence[CapacityOf] = (),
) -> None:
    """Print a run's result to `console`.

    `series` gives the curve, `capacities` how many guests fit, `folder` the closing line; each is
    left out without it.
    """
    width = max(40, min(console.width, _WIDTH_MAX))
    lines: list[Text] = [Text()]
    lines += _paragraph(scenario.question, width, style="bold")
    lines += [*_paragraph(", ".join(setup_words(summary)), width, style="dim"), Text()]
    lines += _paragraph(answer(summary), width)
    if series:
        lines += [Text(), *_curve(summary, series, width, _blocks_for(console.encoding))]
    lines += [Text(), *_tables(figure_tables(summary), width)]
    if summary.phases:
        lines += [Text(), *_phases(summary.phases, width)]
    if summary.guests:
        lines += [Text(), *_guests(summary, width)]
    if capacities:
        fitting = capacity_lines(capacities, max(width, WIDTH))
        lines += [Text(), *(Text(line, look) for line, look in fitting)]
    if expectations:
        lines += [Text(), *_expectations(expectations, width)]
    if scenario.published:
        lines += [Text(), *_published(beside_run(scenario, summary), width)]
    if folder is not None:
        lines += [Text(), Text(f"Run folder: {folder}")]
    for line in lines:
        if _CONTROL.search(line.plain):  # Words of a run folder must not steer the terminal.
            line = Text(_CONTROL.sub("?", line.plain))
        console.print(line, soft_wrap=True, highlight=False)


def _blocks_for(encoding: str) -> str:
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII_BLOCKS
    return BLOCKS


def _paragraph(words: str, width: int, style: str = "") -> list[Text]:
    return [Text(line, style) for line in textwrap.wrap(words, width)]


def _cut(words: str, width: int) -> str:
    """`words` in at most `width` columns, with an ellipsis for what is cut off."""
    if cell_len(words) <= width:
        return words
    return set_cell_size(words, max(0, width - 2)).rstrip() + ".."


def _curve(summary: Summary, series: Sequence[SeriesRow], width: int, blocks: str) -> list[Text]:
    times_s = [row.time_s for row in series]
    known = [(row.time_s, row.resident_bytes) for row in series if row.resident_bytes is not None]
    if not known:
        return [Text(f"Host resident memory over time: {NOT_MEASURED}")]
    high = max(size for _, size in known)
    scale = f" {size_text(high)}"
    columns = width - len(scale)
    values = resample([time_s for time_s, _ in known], [size for _, size in known], columns)
    span = duration_text(times_s[-1] - times_s[0])
    head = Text(_cut(f"Host resident memory over {span}", width), "bold")
    line = Text.assemble((sparkline(values, high, blocks), "cyan"), (scale, "dim"))
    ruler = _ruler(summary.phases, times_s[0], times_s[-1], columns)
    return [head, line] + ([Text(ruler, "dim")] if ruler else [])


def _ruler(phases: Sequence[Phase], start_s: float, end_s: float, columns: int) -> str:
    """The phases' names, each beginning under the column in which the phase begins."""
    if not phases or end_s <= start_s:
        return ""
    scale = columns / (end_s - start_s)
    starts = [max(0, min(columns, int((phase.start_s - start_s) * scale))) for phase in phases]
    line = ""
    for phase, here, following in zip(phases, starts, [*starts[1:], columns], strict=True):
        room = following - here
        if room > 0:
            line = set_cell_size(line, here) + set_cell_size(f"|{phase.name}", room)
    return line.rstrip()


def _tables(tables: Sequence[FigureTable], width: int) -> list[Text]:
    if width < _TWO_COLUMNS_MIN:
        return _stacked(tables, width)
    column = (width - _GAP) // 2
    halves: tuple[list[FigureTable], list[FigureTable]] = ([], [])
    heights = [0, 0]
    for table in tables:  # In reading order, each to the shorter side.
        side = 0 if heights[0] <= heights[1] else 1
        halves[side].append(table)
        heights[side] += len(table.shown()) + 2
    left, right = (_stacked(half, column) for half in halves)
    lines = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        line = one.copy()
        if other.cell_len:
            line.append(" " * (column + _GAP - line.cell_len))
            line.append_text(other)
        lines.append(line)
    return lines


def _stacked(tables: Sequence[FigureTable], width: int) -> list[Text]:
    lines: list[Text] = []
    for table in tables:
        lines += [Text()] if lines else []
        lines.append(Text(table.title, "bold"))
        lines += [_figure_line(figure, width) for figure in table.shown()]
    return lines


def _figure_line(figure: Figure, width: int) -> Text:
    label = _cut(figure.label, width - 2 - cell_len(figure.text) - 1)
    line = Text("  " + label)
    value = _cut(figure.text, width - line.cell_len - 1)
    line.append(" " * (width - line.cell_len - cell_len(value)))
    style = "bold red" if figure.bad else "dim" if figure.text == NOT_MEASURED else ""
    return line.append(value, style)


def _phases(phases: Sequence[Phase], width: int) -> list[Text]:
    rows = [("Phases", "from", "for", "resident", "to", "operations")]
    rows += [
        (
            f"  {phase.name}",
            duration_text(phase.start_s),
            duration_text(phase.end_s - phase.start_s),
            size_text(phase.resident_bytes_start),
            size_text(phase.resident_bytes_end),
            count_text(phase.operations),
        )
        for phase in phases
    ]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(6)]
    name_width = min(widths[0], max(8, width - sum(widths[1:]) - 5 * 2))
    lines = []
    for number, row in enumerate(rows):
        cells = [set_cell_size(_cut(row[0], name_width), name_width)]
        cells += [cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True)]
        lines.append(Text(_cut("  ".join(cells), width), "bold" if number == 0 else ""))
    return lines


def _guests(summary: Summary, width: int) -> list[Text]:
    rows = guest_rows(summary)
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [set_cell_size(row[0] if number == 0 else f"  {row[0]}", max(widths[0], 5))]
        cells += [cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True)]
        lines.append(Text(_cut("  ".join(cells), width), "bold" if number == 0 else ""))
    return lines


def _expectations(expectations: Sequence[ExpectationResult], width: int) -> list[Text]:
    failed = sum(not result.passed for result in expectations)
    verdict = f"{failed} of {len(expectations)} failed" if failed else "all met"
    lines = [Text(f"Expectations: {verdict}", "bold red" if failed else "bold")]
    for result in expectations:
        mark, style = ("pass", "green") if result.passed else ("FAIL", "bold red")
        words = f"{result.metric} {expectation_words(result)}"
        first, *rest = textwrap.wrap(words, width - 8, break_on_hyphens=False)
        lines.append(Text.assemble("  ", (mark, style), f"  {first}"))
        lines += [Text(f"        {line}") for line in rest]
    return lines


def _published(besides: Sequence[Beside], width: int) -> list[Text]:
    lines = [Text("Published, and measured here", "bold")]
    for beside in besides:
        words = f"{beside.published.what}: {beside_words(beside)}"
        first, *rest = textwrap.wrap(words, width - 4, break_on_hyphens=False)
        lines += [Text(f"  {first}"), *(Text(f"    {line}") for line in rest)]
    return lines
