"""A curve in one line of text, and fewer points for a curve with too many.

A sparkline has a column for an equal share of the time.  A column shows the largest value in its
share, because memory that was held, if only briefly, had to be there; a share without a sample
repeats what was known before it.
"""

from collections.abc import Sequence
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS: Final = "_.:-=+*#"  # For terminals and files whose encoding has no blocks.


def resample(times_s: Sequence[float], values: Sequence[float], columns: int) -> list[float | None]:
    """The largest value in each of `columns` equal spans of time; `None` before the first sample.

    `times_s` must not decrease, and both sequences must have the same length; no samples give
    `columns` times `None`.
    """
    assert len(times_s) == len(values)
    highest: list[float | None] = [None] * columns
    if not times_s or columns < 1:
        return highest
    start_s, span_s = times_s[0], times_s[-1] - times_s[0]
    for time_s, value in zip(times_s, values, strict=True):
        share = (time_s - start_s) / span_s if span_s > 0 else 0.0
        column = min(columns - 1, int(share * columns))
        known = highest[column]
        highest[column] = value if known is None else max(known, value)
    for column in range(1, columns):
        if highest[column] is None:
            highest[column] = highest[column - 1]
    return highest


def sparkline(values: Sequence[float | None], high: float, blocks: str = BLOCKS) -> str:
    """One character a value: the lowest block for 0 or less, the highest for `high` or more.

    A `None` is a space.  With `high` of 0 or less every value is the lowest block.
    """
    line = []
    for value in values:
        if value is None:
            line.append(" ")
        elif high <= 0 or value <= 0:
            line.append(blocks[0])
        else:
            level = int(min(value / high, 1.0) * len(blocks))
            line.append(blocks[min(level, len(blocks) - 1)])
    return "".join(line)


def thinned(times_s: Sequence[float], values: Sequence[float], points_max: int) -> list[int]:
    """Indices of at most `points_max` (4 or more) samples that draw the same curve.

    Each equal group of samples keeps its first, lowest, highest and last (known as M4): a line
    through these looks, a few pixels wide, like a line through all.
    """
    assert len(times_s) == len(values)
    count = len(values)
    if count <= points_max:
        return list(range(count))
    groups = max(1, points_max // 4)
    kept: set[int] = set()
    for group in range(groups):
        members = range(group * count // groups, (group + 1) * count // groups)
        lowest = min(members, key=values.__getitem__)
        highest = max(members, key=values.__getitem__)
        kept.update((members[0], lowest, highest, members[-1]))
    return sorted(kept)


class Trail:
    """A curve of unlimited length in bounded memory: neighbours merge when it gets too long.

    It keeps between `columns` and `2 * columns` peaks, each over an equal number of samples.
    """

    def __init__(self, columns: int) -> None:
        assert columns >= 1
        self._columns = columns
        self._peaks: list[float] = []
        self._samples_per_peak = 1
        self._in_last = 0

    def append(self, value: float) -> None:
        """Add a sample."""
        if self._peaks and self._in_last < self._samples_per_peak:
            self._peaks[-1] = max(self._peaks[-1], value)
            self._in_last += 1
            return
        if len(self._peaks) == 2 * self._columns:
            self._peaks = [max(self._peaks[i : i + 2]) for i in range(0, len(self._peaks), 2)]
            self._samples_per_peak *= 2
        self._peaks.append(value)
        self._in_last = 1

    def peaks(self) -> list[float | None]:
        """The curve in at most `columns` peaks, oldest first."""
        if len(self._peaks) <= self._columns:
            return list(self._peaks)
        return resample(range(len(self._peaks)), self._peaks, self._columns)
