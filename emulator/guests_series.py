"""`series-guests.csv`: the samples of each guest, where there are several.

A row a guest and sample, in the order of time and then of the guests: the guest's number, and the
columns of `series.csv`, which holds the sums.
"""

import csv
import io
from collections.abc import Sequence
from typing import Final

from emulator.errors import ConfigError
from emulator.series import read_series, write_series
from emulator.summary import SeriesRow

_GUEST: Final = "guest"


def write_guests_series(guests: Sequence[Sequence[SeriesRow]]) -> str:
    """The text, from the samples of each guest, which were taken at the same times."""
    tables = [write_series(rows).splitlines() for rows in guests]
    lines = [f"{_GUEST},{tables[0][0]}"]
    for rows in zip(*(table[1:] for table in tables), strict=True):
        lines += [f"{index},{row}" for index, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def read_guests_series(text: str, *, where: str) -> list[list[SeriesRow]]:
    """The samples of each guest.  Raises `ConfigError` naming `where`."""
    lines = list(csv.reader(io.StringIO(text, newline="")))
    if not lines or lines[0][:1] != [_GUEST]:
        raise ConfigError(f"{where}: damaged: the first column must be {_GUEST}")
    numbers = sorted({line[0] for line in lines[1:]}, key=lambda number: (len(number), number))
    if numbers != [str(index) for index in range(len(numbers))]:
        raise ConfigError(f"{where}: damaged: guests must be numbered from 0")
    header = ",".join(lines[0][1:])
    guests = []
    for number in numbers:
        own = [",".join(line[1:]) for line in lines[1:] if line[0] == number]
        guests.append(read_series("\n".join([header, *own]) + "\n", where=where))
    return guests
