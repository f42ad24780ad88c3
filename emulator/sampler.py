"""Samples of a running machine: what the series and the summary are made from.

Reads shared words that others write (`memory_map`); every figure of a sample is one aligned load,
or a sum of such, taken within microseconds.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from devices.memory.ram import GuestRam
from emulator.guest.file_io import unwritten_pages
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.summary import SeriesRow


class CacheBytes(NamedTuple):
    """What lies in the guest's page cache and in the host's, bytes; None: there is none."""

    cached: int | None = None
    dirty: int | None = None  # or on its way to the disk
    host: int | None = None
    duplicate: int | None = None  # in both


def page_cache_bytes(guest: Mapping[str, npt.NDArray[Any]]) -> CacheBytes:
    """From the arrays of a guest's segment."""
    if "page_cache.control" not in guest:
        return CacheBytes()
    control = guest["page_cache.control"][0]
    host, both = control["host_cache_pages"], control["duplicate_pages"]
    pages = (control["pages"], unwritten_pages(control), host, both)
    return CacheBytes(*(int(count) * PAGE_SIZE for count in pages))


class SwapPages(NamedTuple):
    """Pages between a guest's memory and its host's swap since the run began."""

    out: int
    back: int
    dropped: int  # discarded while they were there

    @property
    def inside(self) -> int:
        """What is there now."""
        return self.out - self.back - self.dropped


def swap_pages(ram: GuestRam, host: npt.NDArray[Any]) -> SwapPages | None:
    """Of a guest, by HOST[1]; None if its host has no swap."""
    if not ram.swap_actors:
        return None
    back = int(ram.swap_view().traffic["swapped_in_pages"].sum())
    return SwapPages(int(host[0]["swapped_out_pages"]), back, int(host[0]["swap_dropped_pages"]))


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
        swap = swap_pages(self._ram, self._host)
        away = 0 if swap is None else (swap.out - swap.back) * PAGE_SIZE
        return faulted - int(self._host[0]["returned_bytes"]) - away

    def note(self, time_s: float) -> None:
        """Only what is resident, for the ends of phases."""
        self.noted.append((time_s, self.resident_bytes()))

    def sample(self, time_s: float) -> SeriesRow:
        """One row, kept in `rows`."""
        zones, actors = self._guest["zones"], self._guest["actors"]
        balloon, cache = self._guest.get("balloon"), page_cache_bytes(self._guest)
        swap = swap_pages(self._ram, self._host)
        row = SeriesRow(
            time_s=round(time_s, 6),
            resident_bytes=self.resident_bytes(),
            guest_free_bytes=int(zones["free_pages"].sum() + zones["isolated_pages"].sum())
            * PAGE_SIZE,
            guest_reported_bytes=int(zones["reported_pages"].sum()) * PAGE_SIZE,
            page_cache_bytes=cache.cached,
            balloon_bytes=_pages_of(balloon, "pages"),
            operations=int(actors["operations"].sum()),
            reports=int(self._guest["hinting"][0]["reports"]),
            dirty_bytes=cache.dirty,
            host_cache_bytes=cache.host,
            swapped_bytes=None if swap is None else swap.inside * PAGE_SIZE,
            balloon_target_bytes=_pages_of(balloon, "target_pages"),
            duplicate_bytes=cache.duplicate,
        )
        self.rows.append(row)
        self.noted.append((row.time_s, row.resident_bytes or 0))
        return row


def _pages_of(balloon: npt.NDArray[Any] | None, name: str) -> int | None:
    """A number of pages of BALLOON_STATE[1], in bytes."""
    return None if balloon is None else int(balloon[0][name]) * PAGE_SIZE
