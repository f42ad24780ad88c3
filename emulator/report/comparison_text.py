"""A comparison as text of at most 72 columns: on the terminal, and to paste into a mail.

Both are the same lines; the mail has no colour, no curves and nothing beyond ASCII of its own.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from emulator.compare.comparison import Comparison, FigureOfAll
from emulator.compare.measured import FoundDifference
from emulator.report.capacity_words import capacity_lines
from emulator.report.comparison_curves import Band
from emulator.report.comparison_published import (
    PublishedTable,
    published_lines,
    published_tables,
)
from emulator.report.comparison_words import (
    PLUS_MINUS,
    PLUS_MINUS_ASCII,
    answers,
    command_lines,
    difference_text,
    figure_label,
    groups,
    left_behind,
    method_text,
    orders,
    own_figures,
    quality_text,
    setup_text,
    unmeasured,
    value_text,
    violations_text,
)
from emulator.report.published import figure_text
from emulator.report.sparkline import ASCII_BLOCKS, BLOCKS, resample, sparkline
from emulator.report.wording import duration_text, size_text

WIDTH: Final = 72
_LABEL: Final = 24
_VALUE: Final = 12
_CURVE: Final = 36
_CELL: Final = 11
_PUBLISHED_MIN: Final = 28

Line = tuple[str, str]  # Text and style.


def mail_text(comparison: Comparison) -> str:
    """The block for a mail: ASCII but for names, no line longer than 72 columns."""
    lines = [
        *_head(comparison),
        *_capacity(comparison),
        *_left_behind(comparison),
        *_tables(comparison, PLUS_MINUS_ASCII),
        *_published(comparison, PLUS_MINUS_ASCII),
        *_how(comparison, PLUS_MINUS_ASCII),
        *_origin(comparison),
    ]
    return "\n".join(_printable(text).rstrip() for text, _ in lines) + "\n"


def render_comparison(
    comparison: Comparison, bands: Sequence[Band | None], console: Console, *, folder: str
) -> None:
    """Print the comparison; `bands`: residency of each mechanism, for the curves."""
    rich_signs = _encodes(console.encoding, BLOCKS + PLUS_MINUS)
    plus_minus = PLUS_MINUS if rich_signs else PLUS_MINUS_ASCII
    lines = [
        ("", ""),
        *_head(comparison),
        *_curves(comparison, bands, BLOCKS if rich_signs else ASCII_BLOCKS),
        *_answer(comparison, plus_minus),
        *_capacity(comparison),
        *_left_behind(comparison),
        *_tables(comparison, plus_minus),
        *_published(comparison, plus_minus),
        *_how(comparison, plus_minus),
        ("", ""),
        (f"Comparison: {folder}", ""),
    ]
    for text, style in lines:
        console.print(Text(_printable(text), style), soft_wrap=True, highlight=False)


def _encodes(encoding: str, signs: str) -> bool:
    try:
        signs.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _printable(text: str) -> str:
    """Words of a file or of the user must not steer the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _wrapped(text: str, style: str = "", indent: str = "") -> list[Line]:
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return [(line, style) for line in lines]


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 2).rstrip() + ".."


def _head(comparison: Comparison) -> list[Line]:
    lines = _wrapped(comparison.question, "bold") + _wrapped(setup_text(comparison), "dim")
    violations = violations_text(comparison)
    if violations:
        lines += [("", ""), *_wrapped(violations, "bold red")]
    return lines


def _answer(comparison: Comparison, plus_minus: str) -> Iterator[Line]:
    yield "", ""
    yield from _wrapped(f"Compared with {comparison.baseline.label}:")
    for sentence in answers(comparison, plus_minus):
        yield from _wrapped(f"- {sentence}", indent="  ")


def _curves(comparison: Comparison, bands: Sequence[Band | None], blocks: str) -> list[Line]:
    known = [band for band in bands if band is not None]
    if not known:
        return []
    high = max(max(band.middle) for band in known)
    end_s = max(band.times_s[-1] for band in known)
    title = f"Host resident memory over {duration_text(end_s)}, up to {size_text(high)}"
    lines = [("", ""), (_cut(title, WIDTH), "bold")]
    for mechanism, band in zip(comparison.mechanisms, bands, strict=True):
        if band is not None:
            columns = max(1, round(_CURVE * band.times_s[-1] / end_s)) if end_s else 1
            curve = sparkline(resample(band.times_s, band.middle, columns), high, blocks)
            name = set_cell_size(_cut(mechanism.label, WIDTH - _CURVE - 1), WIDTH - _CURVE - 1)
            lines.append((f"{name} {curve}", ""))
    return lines


def _tables(comparison: Comparison, plus_minus: str) -> Iterator[Line]:
    for number, mechanism in enumerate(comparison.mechanisms[1:], start=1):
        yield "", ""
        yield from _wrapped(f"{mechanism.label} against {comparison.baseline.label}", "bold")
        if mechanism.failure is not None:
            yield from _wrapped(f"  Left out, because a run failed: {mechanism.failure}", "red")
        yield _row("", "baseline", "here", "difference"), "dim"
        for title, rows in groups(comparison, number):
            yield f" {title}", "dim"
            for figure, found in rows:
                yield _figure_row(figure, number, found, plus_minus), _style(found)
    own = own_figures(comparison)
    if own:
        yield "", ""
        yield "What mechanisms count of their own, means of the runs", "bold"
    for label, figures in own:
        yield from _wrapped(f"- {label}: {figures}", indent="  ")
    missing = unmeasured(comparison)
    if missing:
        yield "", ""
        yield from _wrapped(f"Not measured: {'; '.join(missing)}.", "dim")


def _style(found: FoundDifference | None) -> str:
    if found is None or found.is_better is None:
        return ""
    return "green" if found.is_better else "red"


def _figure_row(
    figure: FigureOfAll, number: int, found: FoundDifference | None, plus_minus: str
) -> str:
    base, here = figure.mechanisms[0], figure.mechanisms[number]
    difference = ""
    if found is not None:
        difference = difference_text(figure.metric, found, plus_minus)
        quality = quality_text(found)
        difference = f"{difference}  {quality}" if quality else difference
        if found.verdict == "no difference detected":
            difference = f"({difference})"
    else:
        one = here if base.mean is None else base
        low, high = (value_text(figure.metric, value) for value in (one.low, one.high))
        runs = sum(value is not None for value in one.values)
        same = "(in every run)" if runs > 1 else "(one run)"
        difference = f"({low} to {high})" if low != high else same
    there = value_text(figure.metric, base.mean)
    return _row(
        figure_label(figure.metric), there, value_text(figure.metric, here.mean), difference
    )


def _row(label: str, base: str, here: str, difference: str) -> str:
    start = f"  {_cut(label, _LABEL - 2):<{_LABEL - 2}}{base:>{_VALUE}}{here:>{_VALUE}}"
    return _cut(f"{start} {difference}".rstrip(), WIDTH)


def _capacity(comparison: Comparison) -> list[Line]:
    if not comparison.capacity:
        return []
    return [("", ""), *capacity_lines(comparison.capacity, WIDTH)]


def _left_behind(comparison: Comparison) -> Iterator[Line]:
    header, *rows = left_behind(comparison)
    yield "", ""
    yield "At the end: resident on the host, and free but not returned", "bold"
    for cells, style in [(header, "dim"), *((row, "") for row in rows)]:
        label = WIDTH - _CELL * (len(cells) - 1)
        name = set_cell_size(_cut(cells[0], label), label)
        yield f"{name}{''.join(cell.rjust(_CELL) for cell in cells[1:])}", style


def _published(comparison: Comparison, plus_minus: str) -> Iterator[Line]:
    tables = [table for table in published_tables(comparison, plus_minus) if _room_beside(table)]
    for table in tables:
        yield from _published_table(table)
    found = published_lines(comparison, plus_minus, tables)
    if found:
        yield "", ""
        yield "Published, and measured here", "bold"
    for what, lines in found:
        yield from _wrapped(f"- {what}", indent="  ")
        for line in lines:
            yield from ((f"    {part}", "") for part in textwrap.wrap(line, WIDTH - 4))


def _room_beside(table: PublishedTable) -> int:
    """Columns that are left for what was published; 0 if those are too few."""
    room = WIDTH - sum(_widths(table))
    return room if room >= _PUBLISHED_MIN else 0


def _widths(table: PublishedTable) -> list[int]:
    columns = zip(*(cells for _, cells in table.rows), strict=True)
    return [2 + max(cell_len(cell) for cell in column) for column in columns]


def _published_table(table: PublishedTable) -> Iterator[Line]:
    room, widths = _room_beside(table), _widths(table)
    yield "", ""
    yield f"Published differences to {table.against}, and those measured here", "bold"
    numbers = [f"[{number}]" for number in range(1, len(widths) + 1)]
    yield _cells("  published", room, numbers, widths), "dim"
    for figure, cells in table.rows:
        yield from _wrapped(figure.published.what, indent="  ")
        first, *others = textwrap.wrap(figure_text(figure.published), room - 2)
        yield _cells(f"  {first}", room, cells, widths), ""
        yield from ((f"  {other}", "") for other in others)
    for number, label in zip(numbers, table.mechanisms, strict=True):
        yield from _wrapped(f"{number} {label}", "dim", indent="    ")
    yield from _wrapped("In brackets: no difference detected.", "dim")
    for source in table.sources:
        yield from _wrapped(f"Published by {source}.", "dim", indent="    ")


def _cells(start: str, room: int, cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        " " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True)
    )
    return set_cell_size(start, room) + "".join(padded)


def _how(comparison: Comparison, plus_minus: str) -> Iterator[Line]:
    yield "", ""
    for sentence in method_text(comparison, plus_minus):
        yield from _wrapped(sentence, "dim")
    numbers = {m.label: str(n) for n, m in enumerate(comparison.mechanisms)}
    listed = " ".join(
        "".join(("," if step else "") + numbers[label] for step, label in enumerate(order))
        for _, _, order in orders(comparison)
    )
    names = "; ".join(f"{number} {label}" for label, number in numbers.items())
    yield from _wrapped(f"Order: {listed} ({names}).", "dim")


def _origin(comparison: Comparison) -> Iterator[Line]:
    manifest = comparison.manifest
    machine, versions = manifest.get("machine") or {}, manifest.get("versions") or {}
    yield "", ""
    words = [f"{machine['cpus']} CPUs"] if machine.get("cpus") else []
    words += [str(machine[key]) for key in ("cpu_model",) if machine.get(key)]
    words += [f"Linux {machine['kernel']}"] if machine.get("kernel") else []
    words += [f"{name} {version}" for name, version in versions.items() if name == "free-page-lab"]
    if words:
        yield from _wrapped(", ".join(words))
    argv = manifest.get("argv")
    if argv:
        for line in command_lines(argv, WIDTH):
            yield from [(line, "")] if len(line) <= WIDTH else _wrapped(line)
