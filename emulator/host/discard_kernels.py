"""Giving ranges of guest memory back to the system, and counting what really came back.

A page counts as returned if it was resident just before its discard.  The kernel is asked for that
range by range: the file's size before and after would also hold what the vCPUs fault in meanwhile.
cachestat(2) (Linux 6.5) counts a range's pages in a few microseconds; where it says "some", or does
not exist, mincore(2) names them.  (SEEK_HOLE would look for the end of the data far behind the
range, page by page.)
"""

import ctypes
import os
import platform
from typing import Any, Final

import numpy as np
from numba import types

from devices.memory.atomics import exchange
from devices.memory.jit import i64, interpreted, kernel
from devices.memory.ram import HUGE_PAGES, HUGE_SHIFT, PAGE_SIZE
from devices.memory.swap_layout import PAGE_SWAPPED, PAGE_YOUNG

_SEEK_DATA: Final = 3
_SEEK_HOLE: Final = 4
_PUNCH_HOLE_KEEP_SIZE: Final = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_COUNTED_PAGES: Final = 512  # At once: a page that is not resident costs no more than these a look.
_SYS_CACHESTAT: Final = 451  # on every architecture
_SYS_MINCORE: Final = {"x86_64": 27, "aarch64": 232}[platform.machine()]

# What system calls read and write: struct cachestat_range (2 words) and struct cachestat (5).
SCRATCH: Final = np.dtype("<i8")
SCRATCH_WORDS: Final = 7

if interpreted():
    _libc = ctypes.CDLL(None, use_errno=True)

    def _lseek(fd: int, offset: int, whence: int) -> int:
        try:
            return os.lseek(fd, offset, whence)
        except OSError:
            return -1

    def _fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        result: int = _libc.fallocate(
            ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length)
        )
        return result

    def _syscall(number: int, a: int, b: int, c: int, d: int) -> int:
        result: int = _libc.syscall(*map(ctypes.c_long, (number, a, b, c, d)))
        return result
else:
    _lseek = types.ExternalFunction("lseek", types.int64(types.int32, types.int64, types.int32))
    _fallocate = types.ExternalFunction(
        "fallocate", types.int32(types.int32, types.int32, types.int64, types.int64)
    )
    _syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 5))


@kernel(inner=True)
def _resident_pages(fd: int, start: int, length: int, scratch: Any) -> int:
    """Pages of a range of the file that are resident; -1 where the kernel cannot count them."""
    scratch[0] = start
    scratch[1] = length
    address = i64(scratch.ctypes.data)
    if _syscall(_SYS_CACHESTAT, fd, address, address + 16, 0) != 0:
        return -1
    return i64(scratch[2])  # nr_cache


@kernel(inner=True)
def _note_resident(
    fd: int,
    file_offset: int,
    address: int,
    first: int,
    end: int,
    returned: Any,
    vector: Any,
    scratch: Any,
) -> int:
    """Mark the resident ones of the pages `first` .. `end - 1` in `returned`; how many they are."""
    length = (end - first) * PAGE_SIZE
    found = _resident_pages(fd, file_offset + first * PAGE_SIZE, length, scratch)
    if found == 0:
        return 0
    if found == end - first:
        for page in range(first, end):
            returned[page] = 1
        return found
    where = address + first * PAGE_SIZE
    _syscall(_SYS_MINCORE, where, length, i64(vector.ctypes.data) + first, 0)
    found = i64(0)
    for page in range(first, end):
        resident = vector[page] & 1
        returned[page] |= resident
        found += i64(resident)
    return found


@kernel(inner=True)
def _note_gone(fd: int, file_offset: int, first: int, end: int, huge: Any) -> None:
    """Of the 2 MiB in which pages `first` .. `end - 1` were, note those of which nothing is left:
    the next touch may have a huge page there."""
    length = HUGE_PAGES * PAGE_SIZE
    for chunk in range(first >> HUGE_SHIFT, ((end - 1) >> HUGE_SHIFT) + 1):
        start = chunk << HUGE_SHIFT
        if huge[chunk] == 0:
            continue
        at = file_offset + start * PAGE_SIZE
        whole = first <= start and start + HUGE_PAGES <= end
        data = i64(-1) if whole else _lseek(fd, at, _SEEK_DATA)  # From there on; -1: none.
        if data < 0 or data >= at + length:
            huge[chunk] = 0


@kernel
def punch(
    fd: int,
    file_offset: int,
    address: int,
    ranges: Any,
    returned: Any,
    huge: Any,
    vector: Any,
    scratch: Any,
) -> int:
    """Punch DISCARD_RANGE[n] `ranges` out of a region that begins `file_offset` bytes into a file.

    Marks the pages that were resident in `returned` (u1 a page of the region, which is mapped at
    `address`), and in `huge` (as in RamView) what is empty now.  `vector` (u1 a page) and `scratch`
    (SCRATCH[SCRATCH_WORDS]) are for the kernel to write to.  Returns the bytes that were resident,
    or -1 if the system refused a discard.
    """
    pages = i64(0)
    for index in range(len(ranges)):
        start, length = i64(ranges[index]["offset"]), i64(ranges[index]["length"])
        end = (start + length) // PAGE_SIZE
        for first in range(start // PAGE_SIZE, end, _COUNTED_PAGES):
            stop = min(first + _COUNTED_PAGES, end)
            pages += _note_resident(
                fd, file_offset, address, first, stop, returned, vector, scratch
            )
        if _fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, file_offset + start, length) != 0:
            return -1
        if huge.size != 0:
            _note_gone(fd, file_offset, start // PAGE_SIZE, end, huge)
    return pages * PAGE_SIZE


@kernel(inner=True)
def _forget_pages(
    words: Any, huge: Any, marks: Any, first: int, end: int, returned: Any
) -> tuple[int, int]:
    """Pages that were resident, and that were swapped out; a huge page of which only a part is
    discarded is split."""
    found = i64(0)
    dropped = i64(0)
    for page in range(first, end):
        if words[page] != 0:
            words[page] = 0
            returned[page] = 1
            found += 1
            if huge.size != 0:
                huge[page >> HUGE_SHIFT] = 0
            if marks.size != 0 and exchange(marks, page, "mark", PAGE_YOUNG) == PAGE_SWAPPED:
                returned[page] = 0
                found -= 1
                dropped += 1
    return found, dropped


@kernel
def forget(
    words: Any, huge: Any, marks: Any, ranges: Any, returned: Any
) -> tuple[int, int, int, int]:
    """The same for accounted RAM: `words` (i8 a page) become 0.

    huge, marks: as in RamView.  Returns the bytes returned, how many ranges held any, how many huge
    pages were given back whole, and how many pages were in the swap, which frees no memory.
    """
    total = i64(0)
    discards = i64(0)
    whole = i64(0)
    in_swap = i64(0)
    for index in range(len(ranges)):
        first = i64(ranges[index]["offset"]) // PAGE_SIZE
        end = first + i64(ranges[index]["length"]) // PAGE_SIZE
        found = i64(0)
        while first < end:
            until = min((first | (HUGE_PAGES - 1)) + 1, end)
            if huge.size != 0 and until - first == HUGE_PAGES:
                whole += huge[first >> HUGE_SHIFT]
            resident, dropped = _forget_pages(words, huge, marks, first, until, returned)
            found += resident
            in_swap += dropped
            first = until
        discards += i64(found != 0)
        total += found * PAGE_SIZE
    return total, discards, whole, in_swap


@kernel
def join_ranges(ranges: Any, region: int, joined: Any) -> int:
    """Write what `ranges` (DISCARD_RANGE[n]) name of a region to `joined`, in as few ranges as can
    be; how many those are, or -1 if `ranges` do not ascend."""
    count = i64(0)
    start = i64(0)
    for index in range(len(ranges)):
        if ranges[index]["region"] != region:
            continue
        offset, length = i64(ranges[index]["offset"]), i64(ranges[index]["length"])
        if offset < start:
            return -1
        start = offset
        if count > 0:
            before = joined[count - 1]
            reached = i64(before["offset"]) + i64(before["length"])
            if offset <= reached:
                before["length"] = max(reached, offset + length) - i64(before["offset"])
                continue
        joined[count]["region"] = region
        joined[count]["offset"] = offset
        joined[count]["length"] = length
        count += 1
    return count


@kernel
def count_still_gone(fd: int, file_offset: int, returned: Any) -> int:
    """Bytes of a region of a file that were returned and are not resident now."""
    gone = i64(0)
    pages = len(returned)
    for page in range(pages):
        gone += i64(returned[page])
    at = _lseek(fd, file_offset, _SEEK_DATA)
    while at >= 0 and (at - file_offset) // PAGE_SIZE < pages:
        hole = _lseek(fd, at, _SEEK_HOLE)
        first, end = (at - file_offset) // PAGE_SIZE, (hole - file_offset) // PAGE_SIZE
        for page in range(first, min(end, pages)):
            gone -= i64(returned[page])
        at = _lseek(fd, hole, _SEEK_DATA)
    return gone * PAGE_SIZE


@kernel
def count_still_forgotten(words: Any, returned: Any) -> int:
    """The same for accounted RAM."""
    gone = i64(0)
    for page in range(len(returned)):
        gone += i64(returned[page] != 0 and words[page] == 0)
    return gone * PAGE_SIZE
