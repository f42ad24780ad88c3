"""Samples of all guests of a host: each guest's own, and their sum."""

from collections.abc import Iterable, Sequence
from typing import Final

from emulator.guests import Guests
from emulator.sampler import Sampler
from emulator.summary import SeriesRow


class GuestsSampler:
    """`guests`: a sampler for each guest, in their order;  `rows`: the sums."""

    def __init__(self, guests: Guests) -> None:
        self.guests: Final = [Sampler(one.guest, one.host, one.ram) for one in guests]
        self.rows: Final[list[SeriesRow]] = []

    def sample(self, time_s: float) -> SeriesRow:
        """Sample each guest; one row of their sums, kept in `rows`."""
        row = sum_of_rows([guest.sample(time_s) for guest in self.guests])
        self.rows.append(row)
        return row

    def noted(self) -> list[tuple[float, int]]:
        """When how many bytes of all guests were resident."""
        if len(self.guests) == 1:
            return self.guests[0].noted
        return [(row.time_s, row.resident_bytes or 0) for row in self.rows]


def sum_of_rows(rows: Sequence[SeriesRow]) -> SeriesRow:
    """Samples of one time, one of each guest, added up; what one does not have, all do not."""
    if len(rows) == 1:
        return rows[0]
    sums = {
        name: _sum(getattr(row, name) for row in rows)
        for name in SeriesRow.__struct_fields__
        if name != "time_s"
    }
    return SeriesRow(time_s=rows[0].time_s, **sums)


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)
