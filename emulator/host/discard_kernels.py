"""Giving ranges of guest memory back to the system, and counting what really came back.

A page counts as returned if it was resident just before its discard.  The kernel is asked for that
range by range (SEEK_DATA, SEEK_HOLE): the file's size before and after would also hold what the
vCPUs fault in meanwhile.
"""

import ctypes
import os
from typing import Any, Final

from numba import types

from devices.memory.jit import i64, interpreted, kernel
from devices.memory.ram import PAGE_SIZE

_SEEK_DATA: Final = 3
_SEEK_HOLE: Final = 4
_PUNCH_HOLE_KEEP_SIZE: Final = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

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
else:
    _lseek = types.ExternalFunction("lseek", types.int64(types.int32, types.int64, types.int32))
    _fallocate = types.ExternalFunction(
        "fallocate", types.int32(types.int32, types.int32, types.int64, types.int64)
    )


@kernel
def punch(fd: int, ranges: Any, returned: Any) -> int:
    """Punch DISCARD_RANGE[n] `ranges` out of a memfd; marks the pages in `returned` (u1 a page).

    Returns the bytes that were resident, or -1 if the system refused a discard.
    """
    total = i64(0)
    for index in range(len(ranges)):
        start = i64(ranges[index]["offset"])
        end = start + i64(ranges[index]["length"])
        at = _lseek(fd, start, _SEEK_DATA)
        while 0 <= at < end:
            hole = min(_lseek(fd, at, _SEEK_HOLE), end)
            total += hole - at
            for page in range(at // PAGE_SIZE, hole // PAGE_SIZE):
                returned[page] = 1
            if hole == end:
                break
            at = _lseek(fd, hole, _SEEK_DATA)
        if _fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, start, end - start) != 0:
            return -1
    return total


@kernel
def forget(words: Any, ranges: Any, returned: Any) -> int:
    """The same for accounted RAM: `words` (i8 a page) become 0.  Returns the bytes returned."""
    total = i64(0)
    for index in range(len(ranges)):
        start = i64(ranges[index]["offset"]) // PAGE_SIZE
        for page in range(start, start + i64(ranges[index]["length"]) // PAGE_SIZE):
            if words[page] != 0:
                words[page] = 0
                returned[page] = 1
                total += PAGE_SIZE
    return total


@kernel
def count_still_gone(fd: int, words: Any, returned: Any) -> int:
    """Bytes of pages that were returned and are not resident now; `fd` is -1 for accounted RAM."""
    gone = i64(0)
    pages = len(returned)
    if fd < 0:
        for page in range(pages):
            gone += i64(returned[page] != 0 and words[page] == 0)
        return gone * PAGE_SIZE
    for page in range(pages):
        gone += i64(returned[page])
    at = _lseek(fd, 0, _SEEK_DATA)
    while at >= 0:
        hole = _lseek(fd, at, _SEEK_HOLE)
        for page in range(at // PAGE_SIZE, min(hole // PAGE_SIZE, pages)):
            gone -= i64(returned[page])
        at = _lseek(fd, hole, _SEEK_DATA)
    return gone * PAGE_SIZE
