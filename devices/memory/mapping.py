"""Mappings of shared files whose pages may become huge.

A mapping begins at a multiple of 2 MiB, in memory as in its file: only then can the kernel back it
with huge pages.  `populate_huge` asks for them (MADV_COLLAPSE, Linux 6.1): 2 MiB take 90 us, where
512 faults take 1100 us, and nothing but a chance is lost where the kernel refuses.

A mapping lives as long as an array over it.
"""

import ctypes
import mmap
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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

    def __init__(self, address: int, size_bytes: int) -> None:
        self._address = address
        self._size_bytes = size_bytes
        self.__array_interface__: Final[dict[str, Any]] = {
            "version": 3,
            "data": (address, False),
            "shape": (size_bytes,),
            "typestr": "|u1",
        }

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        munmap(self._address, self._size_bytes)


def map_file(fd: int, size_bytes: int) -> npt.NDArray[np.uint8]:
    """Map the first `size_bytes` of a file, shared and writable: u1[size_bytes].

    OSError if the system refuses.
    """
    # Room for an aligned start is reserved first, then what is too much is given back.
    room = size_bytes + HUGE_PAGE_SIZE
    base = _mmap(None, room, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    start = -(-base // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    end = -(-(start + size_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    if start > base:
        _libc.munmap(base, start - base)
    if base + room > end:
        _libc.munmap(end, base + room - end)
    try:
        _mmap(start, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, fd)
    except OSError:
        _libc.munmap(start, end - start)
        raise
    return np.asarray(_Mapping(start, size_bytes))


def populate_huge(memory: npt.NDArray[np.uint8]) -> int:
    """Back the whole huge pages within a mapping by huge pages; returns how many bytes those are.

    0 where the kernel does not do it (before 6.1, or memory too fragmented).
    """
    address = memory.ctypes.data
    start = -(-address // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    end = (address + memory.nbytes) // HUGE_PAGE_SIZE * HUGE_PAGE_SIZE
    if end <= start:
        return 0
    whole = memory[start - address : end - address]
    whole[::HUGE_PAGE_SIZE] |= 0  # Only a range with a page in it can be collapsed.
    refused = _libc.madvise(start, end - start, _MADV_COLLAPSE)
    return 0 if refused else end - start


def _mmap(address: int | None, size_bytes: int, protection: int, flags: int, fd: int) -> int:
    found: int = _libc.mmap(address, size_bytes, protection, flags | _MAP_NORESERVE, fd, 0)
    if found == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mapping {size_bytes} bytes: {os.strerror(number)}")
    return found
