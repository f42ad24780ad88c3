"""A series that lasts as long as its run may, which is for ever, in bounded memory."""

from typing import Final

from emulator.summary import SeriesRow

ROWS_MAX: Final = 8192  # Even, so that the newest row is among those that stay.


class ThinnedRows(list[SeriesRow]):
    """All rows appended, until they are more than ROWS_MAX; then every second one goes.

    From then on only every second one that is appended stays, and so on; the first and the newest
    row are always there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._appended = 0
        self._every = 1
        self._last_stays = True

    def append(self, row: SeriesRow, /) -> None:
        """Add the newest row."""
        if not self._last_stays:
            self.pop()
        super().append(row)
        self._last_stays = self._appended % self._every == 0
        self._appended += 1
        if self._last_stays and len(self) > ROWS_MAX:
            del self[1::2]
            self._every *= 2
