"""Plain tables that survive a pipe and grep: a header, then a line a row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a row under a header of all keys; numbers to the right, None as `-`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([_cell(row.get(key)) for key in columns] for row in rows)]
    numeric = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in columns]
    return aligned(lines, right=numeric)


def aligned(lines: Iterable[Sequence[str]], *, right: Sequence[bool] = ()) -> list[str]:
    """Cells in columns two spaces apart; the columns marked in `right` end flush."""
    rows = [list(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [*right, *(False for _ in widths[len(right) :])]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
        case list() | dict():
            return str(len(value))
    return str(value)
