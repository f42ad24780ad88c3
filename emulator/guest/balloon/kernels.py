"""Pages into the balloon and out of it, a batch a call (Linux 6.6, virtio_balloon.c).

    balloon_page_alloc      take_pages: order 0, movable, no reserves, no retry
    balloon_page_enqueue    enqueue_pages
    balloon_page_dequeue    dequeue_pages: what entered last leaves first
    release_pages_balloon   release_pages

Different from Linux: the guest's kernel has no per-CPU lists, so that pages come from the zones'
lists and go back there; and a batch is taken under one hold of the lock.

The pages of the balloon are a stack, linked through PAGE.next.

Invariant: pages of kind BALLOON == pages + between.
"""

from typing import Any

import numpy as np

from devices.memory.jit import i64, kernel
from emulator.guest.balloon.layout import NOTHING
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    free_one_block,
    pageblock_type,
    rmqueue,
    tick_of,
    watermark_ok,
)
from emulator.guest.mm.hook_kernels import page_freed
from emulator.guest.mm.layout import BALLOON, MOVABLE, NO_PAGE
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.page_alloc_kernels import prefers_no_fragment, zone_of
from emulator.guest.mm.shortage_kernels import (
    found_above_mark,
    reclaimed_directly,
    reclaimed_in_node,
    wake_kswapd,
)


@kernel(inner=True)
def _take_from_zone(
    mm: Any, actor: int, z: int, mark: int, nofragment: bool, pfns: Any, got: int, count: int
) -> int:
    """Take pages of one zone until it is down to `mark`; how many there are now."""
    lock_zone(mm, z, actor)
    while got < count and watermark_ok(mm, z, 0, mark):
        found_above_mark(mm, z)
        pfn = rmqueue(mm, z, 0, MOVABLE, nofragment)
        if pfn == NO_PAGE:
            break
        page = mm.pages[pfn]
        page["owner"] = actor
        page["mark"] = MOVABLE
        page["kind"] = BALLOON
        pfns[got] = pfn
        got += 1
    unlock_zone(mm, z, actor)
    return got


@kernel(inner=True)
def _take_from_any_zone(
    mm: Any,
    actor: int,
    low: bool,
    nofragment: bool,
    cache_first: bool,
    pfns: Any,
    got: int,
    count: int,
) -> int:
    """Down to the low or min watermarks, the highest zone first (get_page_from_freelist)."""
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    for down in range(nr_zones):
        z = nr_zones - 1 - down
        zone = mm.zones[z]
        mark = i64(zone["watermark_min"])
        if low:
            mark = i64(zone["watermark_low"]) + i64(zone["watermark_boost"])
        if down > 0:
            mark += i64(zone["lowmem_reserve"])
        got = _take_from_zone(mm, actor, z, mark, nofragment, pfns, got, count)
        while got < count and reclaimed_in_node(mm, actor, 0, cache_first):
            before = got
            got = _take_from_zone(mm, actor, z, mark, nofragment, pfns, got, count)
            if got == before:  # Still below its mark: the next zone.
                break
    return got


@kernel
def take_pages(mm: Any, actor: int, balloon: Any, pfns: Any, count: int, cache_first: bool) -> int:
    """Allocate up to `count` pages into `pfns` (u4), as an allocation would that neither retries
    nor uses reserves: every zone down to its low, then to its min watermark, and what the page
    cache gives at 32 pages a time.  How many it got.

    cache_first: wherever a zone is below its mark, reclaim in the node before looking elsewhere
    (__GFP_FREE_CACHE); each page is then an allocation of its own, which begins at the low marks.
    """
    nofragment = prefers_no_fragment(mm, i64(mm.kernel[0]["nr_zones"]) - 1)
    got, attempt = i64(0), i64(0)
    while attempt < 2 and got < count:
        wanted = got + 1 if cache_first and attempt == 1 else count
        low = attempt == 0
        got = _take_from_any_zone(mm, actor, low, nofragment, cache_first, pfns, got, wanted)
        if nofragment:
            nofragment = False
            continue
        if got == wanted:
            attempt = 0
            continue
        attempt += 1
        if attempt == 1 and got < count:
            wake_kswapd(mm)
        elif got < count and reclaimed_directly(mm, actor, 0):
            attempt = 1
    balloon[0]["between"] += got
    return got


@kernel(inner=True)
def _adjust_managed(mm: Any, actor: int, pfns: Any, count: int, by: int) -> None:
    """Pages that the guest counts as its own (adjust_managed_page_count); watermarks stay."""
    for index in range(count):
        z = zone_of(mm, i64(pfns[index]))
        lock_zone(mm, z, actor)
        mm.zones[z]["managed"] += by
        unlock_zone(mm, z, actor)


@kernel
def enqueue_pages(mm: Any, actor: int, balloon: Any, pfns: Any, count: int) -> None:
    """Put taken pages into the balloon; `pfns` is turned round, as Linux's two lists do it."""
    record = balloon[0]
    for index in range(count // 2):
        first, last = pfns[index], pfns[count - 1 - index]
        pfns[index] = last
        pfns[count - 1 - index] = first
    for index in range(count):
        pfn = i64(pfns[index])
        mm.pages[pfn]["next"] = np.uint32(record["top"] & 0xFFFFFFFF)
        record["top"] = pfn
    record["pages"] += count
    record["between"] -= count
    if record["deflate_on_oom"] == 0:
        _adjust_managed(mm, actor, pfns, count, -1)


@kernel
def dequeue_pages(mm: Any, balloon: Any, pfns: Any, count: int) -> int:
    """Take up to `count` pages out of the balloon into `pfns`; they are not free yet.  How many."""
    record = balloon[0]
    got = i64(0)
    while got < count and record["top"] != NOTHING:
        pfn = i64(record["top"])
        below = i64(mm.pages[pfn]["next"])
        record["top"] = i64(NOTHING) if below == 0xFFFFFFFF else below
        pfns[got] = pfn
        got += 1
    record["pages"] -= got
    record["between"] += got
    return got


@kernel
def release_pages(mm: Any, actor: int, balloon: Any, pfns: Any, count: int) -> None:
    """Free pages that were taken out of the balloon, the last one first."""
    for back in range(count):
        page_freed(mm, actor, i64(pfns[count - 1 - back]), 0)
    held = i64(-1)
    now_ns = i64(0)
    for back in range(count):
        pfn = i64(pfns[count - 1 - back])
        z = zone_of(mm, pfn)
        if z != held:
            if held >= 0:
                unlock_zone(mm, held, actor)
            now_ns = lock_zone(mm, z, actor)
            held = z
        if balloon[0]["deflate_on_oom"] == 0:
            mm.zones[z]["managed"] += 1
        mm.pages[pfn]["stamp"] = tick_of(now_ns)
        free_one_block(mm, z, pfn, 0, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
    if held >= 0:
        unlock_zone(mm, held, actor)
    balloon[0]["between"] -= count
