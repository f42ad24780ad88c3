"""Takes back what a vCPU held whose process died: its locks, its per-CPU lists, its pages.

The page array is authoritative.  A dead owner of a zone's lock may have left that zone's free lists
and counters half changed: they are made anew from the page array, and pages that were between two
places become free.  The same holds for the page cache's lists, with pages and slots.  Then every
page that the vCPU owned is freed; what it put into the page cache stays there.

The supervisor does this, and not the guest's kernel: that may be waiting itself for the lock that
the dead vCPU holds.  Nothing here waits for a lock but in trio, for its owner may be dead as well,
and its death not noticed yet.
"""

from typing import Final

import numpy as np
import trio

from emulator.guest.mm.check_kernels import rebuild_free_lists, rebuild_pcps
from emulator.guest.mm.layout import ACTOR_LOST, LOCK_HELD, LOCK_SEIZED, PAGE_CACHE
from emulator.guest.mm.lock_kernels import (
    release_cache,
    release_zone,
    try_acquire_cache,
    try_acquire_zone,
)
from emulator.guest.mm.owner_kernels import free_owned
from emulator.guest.mm.page_cache_check_kernels import rebuild_cache
from emulator.guest.mm.views import GuestMemory, PageCache

_POLL_S: Final = 0.001


async def take_back(mm: GuestMemory, cpu: int, *, now_ns: int) -> int:
    """Take back all that vCPU `cpu` held; returns how many pages.  Its process must have ended.

    now_ns: on the guest's clock, as the time at which the pages are freed.
    Works in the name of the guest's kernel (actor `nr_cpus`), beside vCPUs that go on.
    """
    kernel = int(mm.kernel[0]["nr_cpus"])
    mm.actors[cpu]["state"] = ACTOR_LOST
    rebuild_pcps(mm, cpu)
    if isinstance(mm.cache, PageCache):
        while (found := try_acquire_cache(mm, kernel)) == LOCK_HELD:
            await trio.sleep(_POLL_S)
        if found == LOCK_SEIZED:
            rebuild_cache(mm, cpu, np.zeros(1, PAGE_CACHE))
        release_cache(mm)
    pages = 0
    for z in range(int(mm.kernel[0]["nr_zones"])):
        while (found := try_acquire_zone(mm, z, kernel)) == LOCK_HELD:
            await trio.sleep(_POLL_S)
        if found == LOCK_SEIZED:
            pages += int(rebuild_free_lists(mm, z))
        pages += int(free_owned(mm, z, cpu, now_ns))
        release_zone(mm, z, kernel)
    return pages
