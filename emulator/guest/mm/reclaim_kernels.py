"""Taking pages back from the page cache (Linux 6.6, mm/vmscan.c).

Reclaim walks the inactive list from its tail, 32 pages at a time: what was not looked at since is
freed, what was is kept or activated, what is dirty or under write-back is activated, and comes to
the tail once it is written.  While the inactive list is low, the active list's tail refills it.

    priority      a pass looks at 1/2**priority of each list
    kswapd        12 to 1, until a zone is above its high watermark (`reclaim_task`)
    direct        12 to 0, until 32 pages are free
    node reclaim  4 to 0, pages that are not mapped, while there are more than `min_unmapped_pages`;
                  if it is on, or for an allocation that says so (`balloon_cache_first`)
    unmapped control    4 to 0, an eighth of the pages that are not mapped, by kswapd, while they
                  are more than 16 times `min_unmapped_pages`; if `balloon_cache_first` has it on

Prior art: shrink_inactive_list, shrink_folio_list, folio_check_references, shrink_active_list,
shrink_lruvec, inactive_is_low, try_to_free_pages, node_reclaim; unmapped page control is B.
Singh's, of 2010, and was not merged.  Different from Linux: there are
files only, so nothing is swapped; executable mappings get no second round; no shadow entries tell
a refault; a page is mapped or not, without a count.
"""

from typing import Any

import numpy as np

from devices.memory.atomics import store_relaxed
from devices.memory.jit import i64, kernel
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    free_one_block,
    pageblock_type,
    tick_of,
    watermark_ok,
)
from emulator.guest.mm.hook_kernels import page_freed
from emulator.guest.mm.layout import (
    LRU_ACTIVE,
    LRU_INACTIVE,
    SLOT_ACCESSED,
    SLOT_DIRTY,
    SLOT_MAPPED,
    SLOT_RECLAIM,
    SLOT_REFERENCED,
    SLOT_TORN,
    SLOT_WRITEBACK,
)
from emulator.guest.mm.list_kernels import list_prev, lru_sentinel
from emulator.guest.mm.lock_kernels import lock_cache, lock_zone, unlock_cache, unlock_zone
from emulator.guest.mm.page_alloc_kernels import zone_of
from emulator.guest.mm.page_cache_kernels import (
    clear_flags,
    free_chain,
    move_page,
    remove_page,
    set_flags,
)

SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
NODE_RECLAIM_PRIORITY = 4

UNMAPPED_RATIO = 16  # UNMAPPED_PAGE_RATIO: so many times `min_unmapped_pages` are too many.

# Who reclaims; from IN_NODE on, nothing that is mapped.
BY_KSWAPD, DIRECTLY, IN_NODE, FOR_BALLOON, BY_CONTROL = range(5)

_KEEP, _ACTIVATE, _RECLAIM = range(3)
_GIB_PAGES_SHIFT = 18


@kernel(inner=True)
def _free_reclaimed(mm: Any, actor: int, head: int, count: int) -> None:
    """Free a chain of pages: a vCPU's through its per-CPU lists, kswapd's to their zones."""
    if actor < mm.kernel[0]["nr_cpus"]:
        free_chain(mm, actor, head, count)
        return
    pfn = head
    for _ in range(count):
        page_freed(mm, actor, pfn, 0)
        pfn = i64(mm.pages[pfn]["next"])
    pfn = head
    held = i64(-1)
    now_ns = i64(0)
    for _ in range(count):
        following = i64(mm.pages[pfn]["next"])
        z = zone_of(mm, pfn)
        if z != held:
            if held >= 0:
                unlock_zone(mm, held, actor)
            now_ns = lock_zone(mm, z, actor)
            held = z
        mm.pages[pfn]["stamp"] = tick_of(now_ns)
        free_one_block(mm, z, pfn, 0, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
        pfn = following
    if held >= 0:
        unlock_zone(mm, held, actor)


@kernel(inner=True)
def _judge(record: Any, may_unmap: bool) -> int:
    """What becomes of a page at the inactive tail (shrink_folio_list, folio_check_references)."""
    flags = i64(record["flags"])
    if flags & SLOT_MAPPED and not may_unmap:
        return _KEEP
    if flags & SLOT_WRITEBACK:
        set_flags(record, SLOT_RECLAIM)
        return _ACTIVATE
    clear_flags(record, SLOT_REFERENCED | SLOT_ACCESSED)
    if flags & SLOT_MAPPED and flags & SLOT_ACCESSED:
        set_flags(record, SLOT_REFERENCED)
        return _ACTIVATE if flags & SLOT_REFERENCED else _KEEP
    if flags & (SLOT_DIRTY | SLOT_TORN):
        set_flags(record, SLOT_RECLAIM)
        return _ACTIVATE
    return _RECLAIM


@kernel(inline=True)
def _count_freed(control: Any, pages: int, way: int) -> None:
    if way == BY_KSWAPD:
        control["kswapd_pages"] += pages
    elif way == DIRECTLY:
        control["direct_pages"] += pages
    elif way == IN_NODE:
        control["node_pages"] += pages
    elif way == FOR_BALLOON:
        control["cache_first_pages"] += pages
    else:
        control["unmapped_control_pages"] += pages


@kernel(inner=True)
def shrink_inactive(mm: Any, actor: int, count: int, way: int) -> tuple[int, int]:
    """Look at `count` pages from the inactive tail; (pages freed, pages looked at)."""
    cache = mm.cache
    control = cache.control[0]
    inactive = lru_sentinel(mm, LRU_INACTIVE)
    head = i64(0)
    freed = i64(0)
    scanned = i64(0)
    dirty = i64(0)
    lock_cache(mm, actor)
    while scanned < count:
        pfn = list_prev(mm.pages, inactive)
        if pfn == inactive:
            break
        scanned += 1
        slot = i64(mm.pages[pfn]["stamp"])
        flags = i64(cache.slots[slot]["flags"])
        verdict = _judge(cache.slots[slot], way < IN_NODE)
        if verdict == _RECLAIM:
            control["unmapped_pages"] += i64(flags & SLOT_MAPPED != 0)
            remove_page(mm, actor, slot)
            mm.pages[pfn]["next"] = head
            head = pfn
            freed += 1
        elif verdict == _ACTIVATE:
            dirty += i64(flags & SLOT_DIRTY != 0)
            control["activated_pages"] += 1
            move_page(mm, slot, LRU_ACTIVE, False)
        else:
            move_page(mm, slot, LRU_INACTIVE, False)
    control["scanned_pages"] += scanned
    _count_freed(control, freed, way)
    unlock_cache(mm)
    if dirty == scanned and dirty > 0:  # wakeup_flusher_threads(WB_REASON_VMSCAN)
        store_relaxed(cache.control, 0, "flush_wanted", np.uint32(1))
    _free_reclaimed(mm, actor, head, freed)
    return freed, scanned


@kernel(inner=True)
def shrink_active(mm: Any, actor: int, count: int, way: int) -> None:
    """Move up to `count` pages from the active tail to the inactive head."""
    active = lru_sentinel(mm, LRU_ACTIVE)
    lock_cache(mm, actor)
    for _ in range(count):
        pfn = list_prev(mm.pages, active)
        if pfn == active:
            break
        slot = i64(mm.pages[pfn]["stamp"])
        record = mm.cache.slots[slot]
        if i64(record["flags"]) & SLOT_MAPPED and way >= IN_NODE:
            move_page(mm, slot, LRU_ACTIVE, False)
            continue
        clear_flags(record, SLOT_ACCESSED)
        move_page(mm, slot, LRU_INACTIVE, False)
        mm.cache.control[0]["deactivated_pages"] += 1
    unlock_cache(mm)


@kernel(inner=True)
def inactive_is_low(inactive: int, active: int) -> bool:
    """Whether the active list shall give to the inactive one: sqrt(10 * GiB) times as many."""
    gib = (inactive + active) >> _GIB_PAGES_SHIFT
    ratio = i64(1)
    while (ratio + 1) * (ratio + 1) <= 10 * gib:
        ratio += 1
    return inactive * ratio < active


@kernel(inner=True)
def shrink_lists(
    mm: Any, actor: int, priority: int, wanted: int, way: int, force: bool
) -> tuple[int, int]:
    """One pass over 1/2**priority of both lists, until `wanted` pages are free (shrink_lruvec).

    force: the active list gives, however it stands to the inactive one.
    Returns (pages freed, pages looked at).
    """
    control = mm.cache.control[0]
    active = i64(control["active_pages"])
    inactive = max(i64(control["pages"]) - active, 0)
    deactivate = force or inactive_is_low(inactive, active)
    inactive >>= priority
    active >>= priority
    freed = i64(0)
    scanned = i64(0)
    while inactive > 0 or active > 0:
        if inactive > 0:
            batch = min(inactive, SWAP_CLUSTER_MAX)
            inactive -= batch
            got, seen = shrink_inactive(mm, actor, batch, way)
            freed += got
            scanned += seen
        if active > 0:
            batch = min(active, SWAP_CLUSTER_MAX)
            active -= batch
            if deactivate:
                shrink_active(mm, actor, batch, way)
        if freed >= wanted:
            break
    return freed, scanned


@kernel(inner=True)
def wake(mm: Any) -> None:
    """Ask for kswapd; whoever runs this passes it on after its batch."""
    store_relaxed(mm.cache.control, 0, "kswapd_wanted", np.uint32(1))


@kernel(inner=True)
def reclaim_directly(mm: Any, cpu: int, order: int) -> bool:
    """Free 32 pages for a vCPU that found none; whether any were (try_to_free_pages)."""
    freed = i64(0)
    for force in range(2):
        for down in range(DEF_PRIORITY + 1):
            wanted = SWAP_CLUSTER_MAX - freed
            got, _ = shrink_lists(mm, cpu, DEF_PRIORITY - down, wanted, DIRECTLY, force == 1)
            freed += got
            if freed >= SWAP_CLUSTER_MAX:
                break
        if freed > 0:
            break
    return freed > 0


@kernel(inner=True)
def unmapped_pages(mm: Any) -> int:
    """What node reclaim may take: neither mapped nor dirty (node_pagecache_reclaimable)."""
    control = mm.cache.control[0]
    return i64(control["pages"]) - i64(control["mapped_pages"]) - i64(control["dirty_pages"])


@kernel(inner=True)
def node_reclaim(mm: Any, actor: int, order: int, way: int) -> bool:
    """Free `max(1 << order, 32)` pages that are not mapped; whether at least `1 << order` were."""
    control = mm.cache.control[0]
    if unmapped_pages(mm) <= control["min_unmapped_pages"]:
        return False
    pages = i64(1) << order
    freed = i64(0)
    for down in range(NODE_RECLAIM_PRIORITY + 1):
        wanted = max(pages, SWAP_CLUSTER_MAX) - freed
        got, _ = shrink_lists(mm, actor, NODE_RECLAIM_PRIORITY - down, wanted, way, False)
        freed += got
        if freed >= pages:
            break
    return freed >= pages


@kernel(inner=True)
def reclaim_node(mm: Any, actor: int, order: int, cache_first: bool) -> bool:
    """The same, if node reclaim is on (zone_reclaim_mode) or the allocation asks for it."""
    if cache_first:
        return node_reclaim(mm, actor, order, FOR_BALLOON)
    return mm.cache.control[0]["node_reclaim"] != 0 and node_reclaim(mm, actor, order, IN_NODE)


@kernel(inner=True)
def too_many_unmapped(mm: Any) -> bool:
    """Whether unmapped page control is on, and has something to do (should_balance_unmapped)."""
    control = mm.cache.control[0]
    unmapped = i64(control["pages"]) - i64(control["mapped_pages"])
    many = unmapped > UNMAPPED_RATIO * i64(control["min_unmapped_pages"])
    return control["unmapped_control"] != 0 and many


# --- kswapd.


@kernel
def balance_unmapped(mm: Any, actor: int) -> int:
    """Free an eighth of the unmapped pages beyond the least, if they are too many; how many."""
    if not too_many_unmapped(mm):
        return 0
    control = mm.cache.control[0]
    unmapped = i64(control["pages"]) - i64(control["mapped_pages"])
    wanted = (unmapped - i64(control["min_unmapped_pages"])) >> 3
    freed = i64(0)
    for down in range(NODE_RECLAIM_PRIORITY + 1):
        got, _ = shrink_lists(
            mm, actor, NODE_RECLAIM_PRIORITY - down, wanted - freed, BY_CONTROL, False
        )
        freed += got
        if freed >= wanted:
            break
    return freed


@kernel
def any_zone_balanced(mm: Any) -> bool:
    """Whether a zone is above its high watermark, boost included (pgdat_balanced)."""
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    for z in range(nr_zones):
        zone = mm.zones[z]
        mark = i64(zone["watermark_high"]) + i64(zone["watermark_boost"])
        if z < nr_zones - 1:
            mark += i64(zone["lowmem_reserve"])
        if watermark_ok(mm, z, 0, mark):
            return True
    return False


@kernel
def kswapd_pass(mm: Any, actor: int, priority: int) -> tuple[int, bool]:
    """One pass at a priority (kswapd_shrink_node): (pages freed, whether it looked at enough)."""
    wanted = i64(0)
    for z in range(i64(mm.kernel[0]["nr_zones"])):
        high = i64(mm.zones[z]["watermark_high"]) + i64(mm.zones[z]["watermark_boost"])
        wanted += max(high, SWAP_CLUSTER_MAX)
    freed, scanned = shrink_lists(mm, actor, priority, wanted, BY_KSWAPD, False)
    return freed, scanned >= wanted


@kernel
def lower_boost(mm: Any, z: int, actor: int, by: int) -> None:
    """Take back the boost that kswapd found when it woke."""
    lock_zone(mm, z, actor)
    boost = i64(mm.zones[z]["watermark_boost"])
    mm.zones[z]["watermark_boost"] = boost - min(boost, by)
    unlock_zone(mm, z, actor)
