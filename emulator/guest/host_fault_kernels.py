"""What the host puts behind guest memory that is touched for the first time, or again.

Behind accounted RAM that is a word a page.  Behind a memfd the system puts 4 KiB a fault by itself,
and 2 MiB where it is asked to (MADV_COLLAPSE, Linux 6.1): what a hypervisor whose memory has
transparent huge pages gets at the first touch takes one more call here, since shared memory gets
none by default (shmem_enabled: never).
"""

import ctypes
from typing import Any, Final

from numba import types

from devices.memory.jit import i64, interpreted, kernel
from devices.memory.ram import BACKED, HUGE_PAGES, HUGE_SHIFT, PAGE_SIZE

_MADV_COLLAPSE: Final = 25
_HUGE_PAGE_BYTES: Final = HUGE_PAGES * PAGE_SIZE

if interpreted():
    _libc = ctypes.CDLL(None, use_errno=True)

    def _madvise(address: int, length: int, advice: int) -> int:
        result: int = _libc.madvise(
            ctypes.c_void_p(int(address)), ctypes.c_size_t(length), ctypes.c_int(advice)
        )
        return result
else:
    _madvise = types.ExternalFunction("madvise", types.int32(types.int64, types.int64, types.int32))


@kernel(inner=True)
def back_accounted(ram: Any, page: int) -> int:
    """Behind a page of accounted RAM that has nothing; how many pages are resident by that.

    Where the host may take huge pages, a touch in 2 MiB that have nothing behind them gets one.
    """
    if ram.huge.size == 0:
        return 1
    first = page & ~(HUGE_PAGES - 1)
    for other in range(first, first + HUGE_PAGES):
        if ram.words[other] != 0:
            return 1
    for other in range(first, first + HUGE_PAGES):
        ram.words[other] = BACKED
    ram.huge[first >> HUGE_SHIFT] = 1
    return HUGE_PAGES


@kernel(inner=True)
def _collapse(ram: Any, chunk: int, page: int) -> int:
    """Ask for a huge page behind a chunk of 2 MiB; 1 if there is one then.

    A refusal (none is free, a page is in use elsewhere) leaves small pages until all is gone.
    """
    ram.huge[chunk] = 1  # Before the call: who comes next need not ask as well.
    # Only 2 MiB with a page in them can be made huge, and of a file's page a look makes one.
    if ram.words[page << ram.shift] == 0:
        ram.words[page << ram.shift] = BACKED
    address = i64(ram.words.ctypes.data) + chunk * _HUGE_PAGE_BYTES
    return i64(_madvise(address, _HUGE_PAGE_BYTES, _MADV_COLLAPSE) == 0)


@kernel(inline=True)
def back_huge(ram: Any, pfn: int, size: int) -> int:
    """Behind the caller's pages of a memfd, before it writes them: huge pages where the host takes
    them and has had nothing there since it was all given back.  How many it got."""
    found = i64(0)
    if ram.accounted == 0 and ram.huge.size != 0:
        for chunk in range(pfn >> HUGE_SHIFT, ((pfn + size - 1) >> HUGE_SHIFT) + 1):
            if ram.huge[chunk] == 0:
                found += _collapse(ram, chunk, max(pfn, chunk << HUGE_SHIFT))
    return found
