"""Discards: reported ranges, joined or not, are given back to the system and accounted.

What can be given back are `Discardable`s: the RAM of an emulated guest, or the
regions that a real one has handed over.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.address_space import MemoryRegion
from devices.memory.ram import NO_HUGE_PAGES, PAGE_SIZE, GuestRam, RamView
from emulator.host.discard_kernels import (
    SCRATCH,
    SCRATCH_WORDS,
    count_still_forgotten,
    count_still_gone,
    forget,
    join_ranges,
    punch,
)

RAM_REGION: Final = 0  # Of an emulated guest's address space; its rings lie in another.


def join_adjacent(ranges: npt.NDArray[Any], region: int = RAM_REGION) -> npt.NDArray[Any]:
    """The same bytes of a region in as few ranges as can be, ascending (DISCARD_RANGE)."""
    joined = np.empty(len(ranges), DISCARD_RANGE)
    count = join_ranges(ranges, region, joined)
    if count < 0:
        ascending = ranges[ranges["offset"].argsort(kind="stable")]
        count = join_ranges(ascending, region, joined)
    return joined[:count]


def in_order(ranges: npt.NDArray[Any], region: int = RAM_REGION) -> npt.NDArray[Any]:
    """The ranges of a region as they are, ascending."""
    ranges = ranges[ranges["region"] == region]
    return ranges[np.argsort(ranges["offset"], kind="stable")]


class Discardable:
    """Memory that can be given back, page by page.

    fd, offset_bytes:  the file, and where in it the region begins, a multiple of the page size
    words:             for accounted RAM i8[pages], and no file is needed; else the mapped bytes
    accounted:         the RAM's view, if it is; else None
    huge:              of a file, as in RamView, if the guest asks for huge pages
    """

    def __init__(
        self,
        fd: int,
        offset_bytes: int,
        words: npt.NDArray[Any],
        *,
        pages: int,
        accounted: RamView | None = None,
        huge: npt.NDArray[np.int64] = NO_HUGE_PAGES,
    ) -> None:
        self._fd = fd
        self._offset_bytes = offset_bytes
        self._words = words
        self._accounted = accounted
        self._huge = huge
        self._returned = np.zeros(pages, np.uint8)
        self._first, self._end = pages, 0  # Of the pages that may have been returned, of a file.
        self._resident = np.zeros(pages if accounted is None else 0, np.uint8)
        self._scratch = np.zeros(SCRATCH_WORDS, SCRATCH)

    @classmethod
    def of_ram(cls, ram: GuestRam) -> "Discardable":
        """An emulated guest's RAM."""
        view, pages = ram.view(), ram.size_bytes // PAGE_SIZE
        accounted = view if ram.kind == "accounted" else None
        return cls(ram.fd, 0, view.words, pages=pages, accounted=accounted, huge=view.huge)

    @classmethod
    def of_memory(cls, region: MemoryRegion) -> "Discardable":
        """A region that a guest has handed over, and keeps its descriptor and its mapping."""
        assert region.fd is not None and region.memory is not None
        pages = region.size_bytes // PAGE_SIZE
        offset_bytes = region.fd_offset_bytes
        return cls(region.fd, offset_bytes, region.memory, pages=pages)

    def give_back(self, ranges: npt.NDArray[Any], account: Any) -> int:
        """Give one or more ranges back, ascending; returns the bytes that were resident.

        account: a record of HOST, which counts what is known of accounted RAM only.
        OSError if the system refuses.
        """
        ram = self._accounted
        if ram is not None:
            forgotten, discards, whole, in_swap = forget(
                ram.words, ram.huge, ram.swap_marks(), ranges, self._returned
            )
            account["discards"] += discards
            account["huge_pages"] += whole
            account["swap_dropped_pages"] += in_swap
            return int(forgotten)
        end = int((ranges["offset"] + ranges["length"]).max())
        self._first = min(self._first, int(ranges[0]["offset"]) // PAGE_SIZE)
        self._end = max(self._end, end // PAGE_SIZE)
        returned = punch(
            self._fd,
            self._offset_bytes,
            self._words.ctypes.data,
            ranges,
            self._returned,
            self._huge,
            self._resident,
            self._scratch,
        )
        if returned < 0:
            raise OSError("the system refused to punch a hole into the guest's memory")
        return int(returned)

    def still_gone_bytes(self) -> int:
        """Of what was given back, the bytes that are not resident now."""
        if self._accounted is not None:
            return int(count_still_forgotten(self._words, self._returned))
        first, end = self._first, self._end
        if first >= end:  # A region may be far larger than what is behind it.
            return 0
        start = self._offset_bytes + first * PAGE_SIZE
        return int(count_still_gone(self._fd, start, self._returned[first:end]))


class Discarder:
    """Gives ranges of one guest's memory back.

    regions:  by their index in the guest's address space; ranges of others are left alone
    account:  HOST[1]
    join:     discard adjacent ranges of a report at once, not each by itself
    """

    def __init__(
        self, regions: Mapping[int, Discardable], account: npt.NDArray[Any], *, join: bool = True
    ) -> None:
        self._regions = dict(regions)
        self._arranged = join_adjacent if join else in_order
        self._account = account[0]
        self._returned_bytes = self._refaulted_bytes = 0

    @classmethod
    def of_ram(cls, ram: GuestRam, account: npt.NDArray[Any], *, join: bool = True) -> "Discarder":
        """For an emulated guest: its RAM can be discarded, its rings cannot."""
        return cls({RAM_REGION: Discardable.of_ram(ram)}, account, join=join)

    def discard(self, ranges: npt.NDArray[Any]) -> int:
        """Discard valid ranges of whole pages, DISCARD_RANGE[n]; returns the bytes that came back.

        OSError if the system refuses: the file is sealed, or its file system knows no holes.
        """
        began_ns = time.monotonic_ns()
        returned = discarded_ranges = 0
        for index, region in self._regions.items():
            arranged = self._arranged(ranges, index)
            if len(arranged):
                returned += region.give_back(arranged, self._account)
                discarded_ranges += len(arranged)
        account = self._account
        account["requests"] += 1
        account["ranges"] += discarded_ranges
        account["claimed_bytes"] += int(ranges["length"].sum())
        account["returned_bytes"] += returned
        self._returned_bytes += returned
        account["discard_ns"] += time.monotonic_ns() - began_ns
        return returned

    def settle(self) -> None:
        """Count what was returned and touched again.  Call it when the guest has stopped."""
        gone = sum(region.still_gone_bytes() for region in self._regions.values())
        before, self._refaulted_bytes = self._refaulted_bytes, self._returned_bytes - gone
        self._account["refaulted_bytes"] += self._refaulted_bytes - before

    def close(self) -> None:
        """Drop the views of the guest's memory."""
        self._regions.clear()
