"""Discards: reported ranges, joined, are given back to the system and accounted."""

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.host.discard_kernels import (
    SCRATCH,
    SCRATCH_WORDS,
    count_still_gone,
    forget,
    punch,
)

RAM_REGION: Final = 0  # Of the guest's address space; its rings lie in another, and are kept.


def join_adjacent(ranges: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same bytes of guest RAM in as few ranges as can be, ascending (DISCARD_RANGE)."""
    ranges = ranges[ranges["region"] == RAM_REGION]
    if len(ranges) < 2:
        return ranges
    ordered = ranges[np.argsort(ranges["offset"], kind="stable")]
    ends = ordered["offset"] + ordered["length"]
    # A range begins a new one unless it touches what came before; overlaps join, too.
    reached = np.maximum.accumulate(ends)
    begins = np.flatnonzero(np.append(True, ordered["offset"][1:] > reached[:-1]))
    joined = np.zeros(len(begins), DISCARD_RANGE)
    joined["offset"] = ordered["offset"][begins]
    joined["length"] = reached[np.append(begins[1:], len(ordered)) - 1] - joined["offset"]
    return joined


class Discarder:
    """Gives ranges of one guest's RAM back; `account`: HOST[1]."""

    def __init__(self, ram: GuestRam, account: npt.NDArray[Any]) -> None:
        self._ram = ram
        self._account = account[0]
        self._words = ram.view().words
        self._returned = np.zeros(ram.size_bytes // PAGE_SIZE, np.uint8)
        self._resident = np.zeros(len(self._returned) if ram.kind == "memfd" else 0, np.uint8)
        self._scratch = np.zeros(SCRATCH_WORDS, SCRATCH)

    def discard(self, ranges: npt.NDArray[Any]) -> int:
        """Discard valid ranges of whole pages, DISCARD_RANGE[n]; returns the bytes that came back.

        OSError if the system refuses: the file is sealed, or its file system knows no holes.
        """
        began_ns = time.monotonic_ns()
        joined = join_adjacent(ranges)
        if self._ram.kind == "memfd":
            returned = int(
                punch(
                    self._ram.fd, self._words, joined, self._returned, self._resident, self._scratch
                )
            )
            if returned < 0:
                raise OSError("the system refused to punch a hole into the guest's memory")
        else:
            returned = int(forget(self._words, joined, self._returned))
        account = self._account
        account["requests"] += 1
        account["ranges"] += len(joined)
        account["claimed_bytes"] += int(ranges["length"].sum())
        account["returned_bytes"] += returned
        account["discard_ns"] += time.monotonic_ns() - began_ns
        return returned

    def settle(self) -> None:
        """Count what was returned and touched again.  Call it when the guest has stopped."""
        fd = self._ram.fd if self._ram.kind == "memfd" else -1
        gone = int(count_still_gone(fd, self._words, self._returned))
        self._account["refaulted_bytes"] = self._account["returned_bytes"] - gone

    def close(self) -> None:
        """Drop the view of the guest's RAM."""
        self._words = np.zeros(0, np.int64)
