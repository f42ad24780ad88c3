"""Allocating and freeing pages: per-CPU lists in front of the zones (Linux 6.6, mm/page_alloc.c).

Orders 0..3, and a pageblock's order where there are transparent huge pages, pass through lists
that belong to one vCPU and need no lock; all others go to the zone.  Refill and spill move a batch
under one hold of the zone's lock.

Prior art: rmqueue_pcplist, rmqueue_bulk, free_unref_page_commit, nr_pcp_free,
free_pcppages_bulk, get_page_from_freelist.  Different from Linux: the watermark is checked when a
per-CPU list is refilled, not at each allocation, so that the path of a single page touches no
shared word; nothing limits the per-CPU lists while memory is reclaimed.  Only a guest with a page
cache has a kswapd and anything to reclaim: see `shortage_kernels`.  A vCPU that runs out asks the
others for their per-CPU pages and does not wait for them: they answer after their batch.

The type of a pageblock is read without a lock when a page is freed, as in Linux: it may change at
any time, and the page then goes to a list of the old type.

Invariant: for each vCPU and zone, `sum(length of list << order) == count`.
"""

from typing import Any

import numpy as np

from devices.memory.atomics import exchange, load_relaxed, prefetch_write, store_relaxed
from devices.memory.jit import i64, kernel
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    free_one_block,
    pageblock_type,
    rmqueue,
    tick_of,
    watermark_ok,
)
from emulator.guest.mm.hook_kernels import before_failing, page_freed
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    COSTLY_ORDER,
    MAX_ORDER,
    MIGRATETYPE_MASK,
    MOVABLE,
    NO_PAGE,
    NR_LOWORDER_PCP_LISTS,
    NR_MIGRATETYPES,
    NR_PCP_LISTS,
    PCP,
    ZONE_NOFRAGMENT,
)
from emulator.guest.mm.list_kernels import (
    list_add,
    list_add_tail,
    list_del,
    list_next,
    list_prev,
    pcp_list_sentinel,
)
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.shortage_kernels import (
    found_above_mark,
    reclaimed_directly,
    reclaimed_in_node,
    wake_kswapd,
)

_RECLAIM_ROUNDS_MAX = 16  # MAX_RECLAIM_RETRIES


@kernel(inline=True)
def pcp_index(mm: Any, order: int, migratetype: int) -> int:
    """Which per-CPU list holds such blocks (order_to_pindex), or -1 for none."""
    if order <= COSTLY_ORDER:
        return NR_MIGRATETYPES * order + migratetype
    if order == mm.kernel[0]["pageblock_order"] and mm.kernel[0]["thp"] != 0:
        return NR_LOWORDER_PCP_LISTS + i64(migratetype == MOVABLE)
    return -1


@kernel(inline=True)
def _order_of_list(mm: Any, pindex: int) -> int:
    if pindex >= NR_LOWORDER_PCP_LISTS:
        return i64(mm.kernel[0]["pageblock_order"])
    return pindex // NR_MIGRATETYPES


@kernel(inline=True)
def zone_of(mm: Any, pfn: int) -> int:
    z = i64(0)
    while pfn >= mm.zones[z]["end_pfn"]:
        z += 1
    return z


@kernel(inner=True)
def _refill(
    mm: Any, cpu: int, z: int, order: int, migratetype: int, mark: int, nofragment: bool
) -> bool:
    """Fill an empty per-CPU list from the zone (rmqueue_bulk); whether anything came."""
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    batch = i64(mm.pcps[pcp]["batch"])
    if batch > 1:
        batch = max(batch >> order, 2)
    sentinel = pcp_list_sentinel(mm, pcp, pcp_index(mm, order, migratetype))
    taken = i64(0)
    lock_zone(mm, z, cpu)
    if watermark_ok(mm, z, order, mark):
        found_above_mark(mm, z)
        while taken < batch:
            pfn = rmqueue(mm, z, order, migratetype, nofragment)
            if pfn == NO_PAGE:
                break
            page = mm.pages[pfn]
            page["owner"] = cpu
            page["mark"] = migratetype
            list_add_tail(mm.pages, sentinel, pfn)
            page["kind"] = PCP
            taken += 1
    unlock_zone(mm, z, cpu)
    mm.pcps[pcp]["count"] += taken << order
    return taken > 0


@kernel(inner=True)
def _rmqueue_direct(
    mm: Any, cpu: int, z: int, order: int, migratetype: int, mark: int, nofragment: bool
) -> int:
    """One block of an order that the per-CPU lists do not hold."""
    pfn = i64(NO_PAGE)
    lock_zone(mm, z, cpu)
    if watermark_ok(mm, z, order, mark):
        found_above_mark(mm, z)
        pfn = rmqueue(mm, z, order, migratetype, nofragment)
        if pfn != NO_PAGE:
            page = mm.pages[pfn]
            page["owner"] = cpu
            page["mark"] = migratetype
            page["kind"] = ALLOCATED
    unlock_zone(mm, z, cpu)
    return pfn


@kernel(inner=True)
def _look_ahead(mm: Any, sentinel: int, order: int, count: int) -> None:
    """Fetch what freeing `count` pages from the tail of a per-CPU list will write.

    The records of their buddies, and of these buddies' neighbours on the free lists, lie anywhere:
    one after the other, under the lock, each would be waited for.  A guess, made without the lock:
    whoever changes the lists meanwhile only makes it a worse one.
    """
    pages = mm.pages
    pfn = list_prev(pages, sentinel)
    left = count
    while pfn != sentinel and left > 0:
        for level in range(max(order, 2), max(order, 2) + 2):
            prefetch_write(pages, (pfn ^ (1 << level)) & ~((1 << level) - 1))
        left -= 1 << order
        pfn = list_prev(pages, pfn)
    nr_pages = i64(mm.kernel[0]["nr_pages"])
    pfn = list_prev(pages, sentinel)
    left = count
    while pfn != sentinel and left > 0:
        at = pfn
        for level in range(order, MAX_ORDER):
            buddy = at ^ (1 << level)
            if (
                buddy >= nr_pages
                or pages[buddy]["kind"] != BUDDY
                or i64(pages[buddy]["order"]) != level
            ):
                break
            prefetch_write(pages, list_next(pages, buddy))
            prefetch_write(pages, list_prev(pages, buddy))
            at &= buddy
        left -= 1 << order
        pfn = list_prev(pages, pfn)


@kernel(inner=True)
def _spill(mm: Any, cpu: int, z: int, count: int, pindex: int) -> None:
    """Give `count` pages of per-CPU lists back to the zone (free_pcppages_bulk).

    The oldest of list `pindex` first, then round robin over the others, under one hold of the lock.
    """
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    count = min(count, i64(mm.pcps[pcp]["count"]))
    if count <= 0:
        return
    order = _order_of_list(mm, pindex)
    if count > 1 << order:
        _look_ahead(mm, pcp_list_sentinel(mm, pcp, pindex), order, count)
    now_ns = lock_zone(mm, z, cpu)
    while count > 0:
        sentinel = pcp_list_sentinel(mm, pcp, pindex)
        order = _order_of_list(mm, pindex)
        while count > 0:
            pfn = list_prev(mm.pages, sentinel)
            if pfn == sentinel:
                break
            migratetype = i64(mm.pages[pfn]["mark"]) & MIGRATETYPE_MASK
            list_del(mm.pages, pfn)
            count -= 1 << order
            mm.pcps[pcp]["count"] -= 1 << order
            free_one_block(mm, z, pfn, order, migratetype, FREE_NOTIFYING, now_ns)
        pindex = pindex + 1 if pindex + 1 < NR_PCP_LISTS else 0
    unlock_zone(mm, z, cpu)


@kernel
def drain_pcps(mm: Any, cpu: int) -> None:
    """Give all of this vCPU's per-CPU pages back to the zones (drain_local_pages)."""
    for z in range(i64(mm.kernel[0]["nr_zones"])):
        pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
        _spill(mm, cpu, z, i64(mm.pcps[pcp]["count"]), 0)


@kernel
def drain_if_requested(mm: Any, cpu: int) -> None:
    """Answer another vCPU that ran out of memory (drain_all_pages runs on every CPU)."""
    if load_relaxed(mm.actors, cpu, "drain_requested") != 0:
        exchange(mm.actors, cpu, "drain_requested", np.uint32(0))
        drain_pcps(mm, cpu)


@kernel(inner=True)
def _ask_all_to_drain(mm: Any, cpu: int) -> None:
    for other in range(i64(mm.kernel[0]["nr_cpus"])):
        if other != cpu:
            store_relaxed(mm.actors, other, "drain_requested", np.uint32(1))


@kernel(inline=True)
def prefers_no_fragment(mm: Any, z: int) -> bool:
    return (mm.zones[z]["flags"] & ZONE_NOFRAGMENT) != 0


@kernel(inner=True)
def _alloc_from_zone(
    mm: Any, cpu: int, z: int, order: int, migratetype: int, mark: int, nofragment: bool
) -> int:
    pindex = pcp_index(mm, order, migratetype)
    if pindex < 0:
        return _rmqueue_direct(mm, cpu, z, order, migratetype, mark, nofragment)
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    sentinel = pcp_list_sentinel(mm, pcp, pindex)
    if list_next(mm.pages, sentinel) == sentinel and not _refill(
        mm, cpu, z, order, migratetype, mark, nofragment
    ):
        return NO_PAGE
    return _take(mm, pcp, sentinel, order)


@kernel(inline=True)
def _take(mm: Any, pcp: int, sentinel: int, order: int) -> int:
    """The head of a per-CPU list that is not empty."""
    pages = mm.pages
    pfn = list_next(pages, sentinel)
    after = list_next(pages, pfn)
    pages[sentinel]["next"] = after
    pages[after]["prev"] = sentinel
    pages[pfn]["kind"] = ALLOCATED
    mm.pcps[pcp]["count"] -= 1 << order
    mm.pcps[pcp]["free_factor"] >>= 1
    return pfn


@kernel(inner=True)
def _alloc_from_any_zone(
    mm: Any, cpu: int, order: int, migratetype: int, low: bool, nofragment: bool
) -> int:
    """Above the low or min watermarks, the preferred zone first (get_page_from_freelist)."""
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    for down in range(nr_zones):
        z = nr_zones - 1 - down
        zone = mm.zones[z]
        mark = i64(zone["watermark_min"])
        if low:
            mark = i64(zone["watermark_low"]) + i64(zone["watermark_boost"])
        if down > 0:
            mark += i64(zone["lowmem_reserve"])
        pfn = _alloc_from_zone(mm, cpu, z, order, migratetype, mark, nofragment)
        if pfn == NO_PAGE and reclaimed_in_node(mm, cpu, order, False):
            pfn = _alloc_from_zone(mm, cpu, z, order, migratetype, mark, nofragment)
        if pfn != NO_PAGE:
            return pfn
    return NO_PAGE


@kernel(inner=True)
def _alloc_slowly(mm: Any, cpu: int, order: int, migratetype: int) -> int:
    """Every zone down to its low, then its min watermark; then with the page cache reclaimed, and
    at last with per-CPU lists given back.

    Where NORMAL is preferred over DMA32, all zones are first tried without mixing migratetypes in a
    pageblock (ALLOC_NOFRAGMENT), and then with it.
    """
    attempt = i64(0)
    rounds = i64(0)
    if prefers_no_fragment(mm, i64(mm.kernel[0]["nr_zones"]) - 1):
        pfn = _alloc_from_any_zone(mm, cpu, order, migratetype, True, True)
        if pfn != NO_PAGE:
            return pfn
    while True:
        pfn = _alloc_from_any_zone(mm, cpu, order, migratetype, attempt == 0, False)
        if pfn != NO_PAGE:
            return pfn
        attempt += 1
        if attempt == 1:
            wake_kswapd(mm)
        elif rounds < _RECLAIM_ROUNDS_MAX and reclaimed_directly(mm, cpu, order):
            rounds += 1
            attempt = 1
        elif attempt == 2:
            drain_pcps(mm, cpu)
            _ask_all_to_drain(mm, cpu)
        elif not before_failing(mm, cpu, order, attempt - 3):
            mm.actors[cpu]["failed_allocations"] += 1
            return NO_PAGE


@kernel(inline=True)
def alloc_pages(mm: Any, cpu: int, order: int, migratetype: int) -> int:
    """A block of `1 << order` pages for vCPU `cpu`: its first page frame, or NO_PAGE."""
    pindex = pcp_index(mm, order, migratetype)
    if pindex >= 0:
        # The highest zone is preferred; its list is looked at without a lock.
        nr_zones = i64(mm.kernel[0]["nr_zones"])
        pcp = (cpu + 1) * nr_zones - 1
        sentinel = pcp_list_sentinel(mm, pcp, pindex)
        if list_next(mm.pages, sentinel) != sentinel:
            return _take(mm, pcp, sentinel, order)
    return _alloc_slowly(mm, cpu, order, migratetype)


@kernel(inner=True)
def _free_direct(mm: Any, cpu: int, pfn: int, order: int) -> None:
    z = zone_of(mm, pfn)
    now_ns = lock_zone(mm, z, cpu)
    mm.pages[pfn]["stamp"] = tick_of(now_ns)
    free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
    unlock_zone(mm, z, cpu)


@kernel(inner=True)
def _free_too_many(mm: Any, cpu: int, z: int, order: int, pindex: int, free_high: bool) -> None:
    """The per-CPU lists are over their limit (nr_pcp_free)."""
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    lists = mm.pcps[pcp]
    if free_high:
        _spill(mm, cpu, z, i64(lists["count"]), pindex)
        return
    high, batch = i64(lists["high"]), i64(lists["batch"])
    if high < batch:
        _spill(mm, cpu, z, 1, pindex)
        return
    most = high - batch
    wanted = batch << i64(lists["free_factor"])
    if wanted < most:
        lists["free_factor"] += 1
    _spill(mm, cpu, z, min(max(wanted, batch), most), pindex)


@kernel(inline=True)
def free_pages(mm: Any, cpu: int, pfn: int, order: int) -> None:
    """Free a block that this vCPU, or another, allocated."""
    page_freed(mm, cpu, pfn, order)
    migratetype = pageblock_type(mm, pfn)
    pindex = pcp_index(mm, order, migratetype)
    if pindex < 0:
        _free_direct(mm, cpu, pfn, order)
        return
    pages = mm.pages
    z = zone_of(mm, pfn)
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    pages[pfn]["stamp"] = tick_of(i64(mm.actors[cpu]["now_ns"]))
    pages[pfn]["owner"] = cpu
    pages[pfn]["mark"] = migratetype
    list_add(pages, pcp_list_sentinel(mm, pcp, pindex), pfn)
    pages[pfn]["kind"] = PCP
    lists = mm.pcps[pcp]
    lists["count"] += 1 << order
    free_high = lists["free_factor"] != 0 and 0 < order <= COSTLY_ORDER
    if free_high or lists["count"] >= lists["high"]:
        _free_too_many(mm, cpu, z, order, pindex, free_high)
