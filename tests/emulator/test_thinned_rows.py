"""A series without end in bounded memory."""

from itertools import pairwise

import pytest

from emulator.summary import SeriesRow
from emulator.thinned_rows import ROWS_MAX, ThinnedRows


@pytest.mark.parametrize("appended", [1, ROWS_MAX, ROWS_MAX + 1, ROWS_MAX + 2, 10 * ROWS_MAX + 3])
def test_it_stays_even_and_has_the_first_and_the_newest(appended: int) -> None:
    rows = ThinnedRows()
    for number in range(appended):
        rows.append(SeriesRow(time_s=float(number)))
        assert rows[-1].time_s == number
    times = [row.time_s for row in rows]
    assert times[0] == 0 and len(times) <= ROWS_MAX + 1
    assert len(times) >= min(appended, ROWS_MAX // 2)
    steps = {later - earlier for earlier, later in pairwise(times[:-1])}
    assert len(steps) <= 1
