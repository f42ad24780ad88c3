"""Mappings of shared files whose pages may become huge.

A mapping lies in memory as in its file, relative to multiples of 2 MiB: only then can the kernel
back it with huge pages.  `populate_huge` asks for them (MADV_COLLAPSE, Linux 6.1): 2 MiB take
90 us, where 512 faults take 1100 us, and nothing but a chance is lost where the kernel refuses.

A mapping lives as long as an array over it.
"""

import ctypes
import mmap
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.bus_error import Guard

HUGE_PAGE_SIZE: Final = 2 << 20
_MADV_COLLAPSE: Final = 25
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Mapping:
    """A mapped range; arrays over it keep it alive, and it is unmapped with the last of them."""

    def __init__(self, address: int, offset: int, size_bytes: int) -> None:
        self._address = address
        self._mapped_bytes = offset + size_bytes
        self.__array_interface__: Final[dict[str, Any]] = {
            "version": 3,
            "data": (address + offset, False),
            "shape": (size_bytes,),
            "typestr": "|u1",
        }

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        munmap(self._address, self._mapped_bytes)


class _GuardedMapping(_Mapping):
    """One whose file may shrink."""

    def __init__(self, address: int, offset: int, size_bytes: int, guard: Guard) -> None:
        self._guard = guard
        super().__init__(address, offset, size_bytes)

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        self._guard.release()
        super().__del__(munmap)


def map_file(fd: int, size_bytes: int, offset_bytes: int = 0) -> npt.NDArray[np.uint8]:
    """Map `size_bytes` of a file from `offset_bytes` on, shared and writable: u1[size_bytes].

    OSError if the system refuses.
    """
    return np.asarray(_Mapping(*_map(fd, size_bytes, offset_bytes)))


def map_foreign_file(
    fd: int, size_bytes: int, offset_bytes: int = 0
) -> tuple[npt.NDArray[np.uint8], Guard]:
    """The same for a file that another process may shrink, with what tells us that it did.

    OSError if the system refuses, or if too many such files are mapped.
    """
    address, offset, size_bytes = _map(fd, size_bytes, offset_bytes)
    try:
        guard = Guard(address, offset + size_bytes)
    except OSError:
        _libc.munmap(address, offset + size_bytes)
        raise
    return np.asarray(_GuardedMapping(address, offset, size_bytes, guard)), guard


def _map(fd: int, size_bytes: int, offset_bytes: int) -> tuple[int, int, int]:
    """Where whole pages were mapped, where in them the file's bytes begin, and how many."""
    # Room for a well-placed start is reserved first, then what is too much is given back.
    skipped = offset_bytes % mmap.PAGESIZE
    first = offset_bytes - skipped
    length = size_bytes + skipped
    room = length + HUGE_PAGE_SIZE
    base = _mmap(None, room, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    start = base + (first - base) % HUGE_PAGE_SIZE
    end = -(-(start + length) // mmap.PAGESIZE) * mmap.PAGESIZE
    if start > base:
        _libc.munmap(base, start - base)
    if base + room > end:
        _libc.munmap(end, base + room - end)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    try:
        _mmap(start, length, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, first)
    except OSError:
        _libc.munmap(start, end - start)
        raise
    return start, skipped, size_bytes


def populate_huge(memory: npt.NDArray[np.uint8]) -> int:
    """Back the whole huge pages within a mapping by huge pages; returns how many bytes those are.

    Others may read and write that memory meanwhile.  0 where the kernel does not do it (before 6.1,
    or memory too fragmented).
    """
    address = memory.ctypes.data
    start = -(-address // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    end = (address + memory.nbytes) // HUGE_PAGE_SIZE * HUGE_PAGE_SIZE
    if end <= start:
        return 0
    whole = memory[start - address : end - address]
    # Only what has a page already can be collapsed; of shared memory a look makes one.
    whole[::HUGE_PAGE_SIZE].max()
    refused = _libc.madvise(start, end - start, _MADV_COLLAPSE)
    return 0 if refused else end - start


def _mmap(
    address: int | None, size_bytes: int, protection: int, flags: int, fd: int, offset_bytes: int
) -> int:
    found: int = _libc.mmap(
        address, size_bytes, protection, flags | _MAP_NORESERVE, fd, offset_bytes
    )
    if found == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mapping {size_bytes} bytes: {os.strerror(number)}")
    return found
