"""`series.csv`: a line for each sample of a run, with the columns of `SeriesRow`."""

import csv
import io
from collections.abc import Iterable
from typing import Final

import msgspec

from emulator.errors import ConfigError
from emulator.summary import SeriesRow

_COLUMNS_MIN: Final = 8  # Once these were all; others came at the end.


def write_series(rows: Iterable[SeriesRow]) -> str:
    """The text of `series.csv`: a header, then a line a row; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SeriesRow.__struct_fields__)
    for row in rows:
        writer.writerow("" if v is None else v for v in msgspec.structs.astuple(row))
    return text.getvalue()


def read_series(text: str, *, where: str = "series.csv") -> list[SeriesRow]:
    """The rows of `series.csv`.  Raises `ConfigError` naming `where` and the line."""
    columns = SeriesRow.__struct_fields__
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ConfigError(f"{where}: damaged: {error}") from None
    known = range(_COLUMNS_MIN, len(columns) + 1)
    if not lines or tuple(lines[0]) not in [columns[:count] for count in known]:
        raise ConfigError(f"{where}: damaged: the first line must be {','.join(columns)}")
    columns = tuple(lines[0])
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(columns):
            raise ConfigError(
                f"{where}: damaged: line {number} has {len(cells)} cells, not {len(columns)}"
            )
        values = {c: cell for c, cell in zip(columns, cells, strict=True) if cell != ""}
        try:
            rows.append(msgspec.convert(values, SeriesRow, strict=False))
        except msgspec.ValidationError as error:
            text_of_error = str(error).replace("`", "")
            raise ConfigError(f"{where}: damaged: line {number}: {text_of_error}") from None
    return rows
