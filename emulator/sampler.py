"""Samples of a running machine: what the series and the summary are made from.

Reads shared words that others write (`memory_map`); every figure of a sample is one aligned load,
or a sum of such, taken within microseconds.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy.typing as npt

from devices.memory.ram import GuestRam
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.summary import SeriesRow


class Sampler:
    """Samples one guest; `guest`: the arrays of its segment, `host`: HOST[1]."""

    def __init__(
        self, guest: Mapping[str, npt.NDArray[Any]], host: npt.NDArray[Any], ram: GuestRam
    ) -> None:
        self._guest = guest
        self._host = host
        self._ram = ram
        self.rows: Final[list[SeriesRow]] = []
        self.noted: Final[list[tuple[float, int]]] = []

    def resident_bytes(self) -> int:
        """What the host has behind the guest now."""
        if self._ram.kind == "memfd":
            return self._ram.file_resident_bytes()
        faulted = int(self._guest["actors"]["faults"].sum()) * PAGE_SIZE
        return faulted - int(self._host[0]["returned_bytes"])

    def note(self, time_s: float) -> None:
        """Only what is resident, for the ends of phases."""
        self.noted.append((time_s, self.resident_bytes()))

    def sample(self, time_s: float) -> SeriesRow:
        """One row, kept in `rows`."""
        zones, actors = self._guest["zones"], self._guest["actors"]
        balloon = self._guest.get("balloon")
        row = SeriesRow(
            time_s=round(time_s, 6),
            resident_bytes=self.resident_bytes(),
            guest_free_bytes=int(zones["free_pages"].sum() + zones["isolated_pages"].sum())
            * PAGE_SIZE,
            guest_reported_bytes=int(zones["reported_pages"].sum()) * PAGE_SIZE,
            balloon_bytes=None if balloon is None else int(balloon[0]["pages"]) * PAGE_SIZE,
            operations=int(actors["operations"].sum()),
            reports=int(self._guest["hinting"][0]["reports"]),
        )
        self.rows.append(row)
        self.noted.append((row.time_s, row.resident_bytes or 0))
        return row
