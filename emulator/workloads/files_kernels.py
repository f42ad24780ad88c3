"""The compiled loop of the workload that reads and writes files."""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.lock_kernels import now
from emulator.guest.mm.page_cache_kernels import read_pages, write_pages
from emulator.workloads.kernels import next_random


@kernel
def files_batch(
    mm: Any, ram: Any, cpu: int, state: Any, progress: Any, pfns: Any, count: int
) -> int:
    """`count` requests: reads or writes of some pages of a file; fewer where memory has run out.

    Every second request goes on where the last read of its file ended, the others begin anywhere.
    state: FILE_REQUESTS[1]; progress: FILE_PROGRESS of all vCPUs; pfns: u4[] for one request.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    control = state[0]
    request = i64(control["request_pages"])
    for done in range(count):
        bits = next_random(state)
        if bits & 1023 < control["hot_of_1024"]:
            file = (bits >> 10) % i64(control["hot_files"])
        else:
            hot = i64(control["hot_files"]) % i64(control["files"])
            file = hot + (bits >> 10) % (i64(control["files"]) - hot)
        mapped = file < control["mapped_files"]
        size = i64(mm.cache.files[file]["pages"])
        bits = next_random(state)
        index = i64(mm.cache.files[file]["next_read"])
        if bits & 1 or index >= size:
            index = ((bits >> 1) & 0xFFFFFFFF) % -(-size // request) * request
        pages = min(request, size - index)
        if not mapped and (bits >> 40) & 1023 < control["writes_of_1024"]:
            got = write_pages(mm, ram, cpu, file, index, pages, pfns)
            progress[cpu]["written_pages"] += got
        else:
            got = read_pages(mm, ram, cpu, file, index, pages, mapped, pfns)
            progress[cpu]["read_pages"] += got
        mm.actors[cpu]["operations"] += got
        if got < pages:
            return done
    return count
