"""The compiled loops of the workload that compiles from files: each call does a batch."""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.lock_kernels import now
from emulator.guest.mm.page_cache_kernels import read_pages, write_pages


@kernel
def read_files(
    mm: Any, ram: Any, cpu: int, wanted: Any, first: int, count: int, mapped: bool, pfns: Any
) -> int:
    """Read whole files, `wanted[first : first + count]` (i8); how many, before memory ran out.

    mapped: through page tables.  pfns: u4[], for one request; half of it is asked for at a time.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    request = pfns.size // 2
    for done in range(count):
        file = i64(wanted[first + done])
        size = i64(mm.cache.files[file]["pages"])
        index = i64(0)
        while index < size:
            pages = min(request, size - index)
            got = read_pages(mm, ram, cpu, file, index, pages, mapped, pfns)
            mm.actors[cpu]["operations"] += got
            if got < pages:
                return done
            index += got
    return count


@kernel
def write_file(mm: Any, ram: Any, cpu: int, file: int, first: int, count: int, pfns: Any) -> int:
    """Write `count` pages of a file from page `first` on; how many, before memory ran out."""
    mm.actors[cpu]["now_ns"] = now(mm)
    got = write_pages(mm, ram, cpu, file, first, count, pfns)
    mm.actors[cpu]["operations"] += got
    return got
