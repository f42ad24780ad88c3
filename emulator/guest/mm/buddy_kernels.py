"""The buddy allocator of one zone (Linux 6.6, mm/page_alloc.c); its lock is held throughout.

Blocks of `1 << order` pages, free lists by order and migratetype.  Positions on a list are exact:
head, tail and rotation are as in the kernel, since the mechanisms differ mainly there.

Prior art: __free_one_page, __rmqueue_smallest, expand, __rmqueue_fallback,
steal_suitable_fallback, __isolate_free_page, __putback_isolated_page.  The order of the writes
keeps the page array a truth to rebuild from: a block's head is marked last when it is freed, and
first when it is split.

Different from Linux: no compaction takes a block while it is freed, the lists are never shuffled,
and pages are grouped by mobility however small the guest is.  What Linux looks for on the LRU
lists, to tell movable pages in use, is here the page cache and what was allocated as movable.

Invariant: `sum(nr_free[order] << order) == free_pages`.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.deferred_kernels import init_section
from emulator.guest.mm.hook_kernels import (
    block_freed,
    block_split,
    block_unlinked,
    may_merge,
    may_take,
    tail_of_list,
)
from emulator.guest.mm.layout import (
    ALLOCATED,
    BALLOON,
    BUDDY,
    CACHE,
    ISOLATED,
    MARK_REPORTED,
    MAX_ORDER,
    MIGRATETYPE_MASK,
    MOVABLE,
    NO_PAGE,
    NONE,
    NR_MIGRATETYPES,
    RECLAIMABLE,
    TICK_MASK,
    TICK_SHIFT,
    UNMOVABLE,
)
from emulator.guest.mm.list_kernels import (
    free_list_sentinel,
    list_add,
    list_add_tail,
    list_del,
    list_next,
)

# Flags of free_one_block (fpi_t).
FREE_NOTIFYING = 0
FREE_SILENTLY_TO_TAIL = 1  # FPI_SKIP_REPORT_NOTIFY | FPI_TO_TAIL: put back, or handed over at boot

_BOOST_FACTOR = 15000  # watermark_boost_factor, parts in 10000 of the high watermark


@kernel(inline=True)
def pageblock_type(mm: Any, pfn: int) -> int:
    return i64(mm.pageblocks[pfn >> i64(mm.kernel[0]["pageblock_order"])])


@kernel(inline=True)
def tick_of(now_ns: int) -> int:
    return (now_ns >> TICK_SHIFT) & TICK_MASK


@kernel(inline=True)
def unlink_free(mm: Any, z: int, pfn: int, order: int) -> None:
    """Take a block off its free list (del_page_from_free_list); its reported mark is lost."""
    block_unlinked(mm, z, pfn, order)
    page = mm.pages[pfn]
    if page["mark"] & MARK_REPORTED:
        mm.zones[z]["reported_pages"] -= 1 << order
    list_del(mm.pages, pfn)
    page["mark"] = 0
    mm.zones[z]["nr_free"][order] -= 1
    mm.zones[z]["list_moves"] += 1


@kernel(inline=True)
def link_free(mm: Any, z: int, pfn: int, order: int, migratetype: int, tail: bool) -> None:
    """Put a block on a free list of its zone."""
    page = mm.pages[pfn]
    page["order"] = order
    page["mark"] = 0
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    if tail:
        list_add_tail(mm.pages, tail_of_list(mm, z, order, migratetype, sentinel), pfn)
    else:
        list_add(mm.pages, sentinel, pfn)
    page["kind"] = BUDDY
    mm.zones[z]["nr_free"][order] += 1
    mm.zones[z]["list_moves"] += 1


@kernel(inline=True)
def is_free_buddy(mm: Any, z: int, pfn: int, order: int) -> bool:
    """Whether `pfn` heads a free block of just this order in zone `z`, and may merge."""
    if pfn < mm.zones[z]["start_pfn"] or pfn + (1 << order) > mm.zones[z]["end_pfn"]:
        return False
    if mm.pages[pfn]["kind"] != BUDDY or mm.pages[pfn]["order"] != order:
        return False
    return may_merge(mm, z, pfn, order)


@kernel(inner=True)
def free_one_block(
    mm: Any, z: int, pfn: int, order: int, migratetype: int, flags: int, now_ns: int
) -> int:
    """Merge a block with its free buddies and put it on a list; returns the final order.

    `pages[pfn]["stamp"]` holds the ticks of its last free; the merged block keeps the latest.
    The merged block takes the migratetype of what was freed, not of its buddy.
    """
    pages = mm.pages
    mm.zones[z]["free_pages"] += 1 << order
    stamp = i64(pages[pfn]["stamp"])
    pages[pfn]["kind"] = NONE
    while order < MAX_ORDER:
        buddy = pfn ^ (1 << order)
        if not is_free_buddy(mm, z, buddy, order):
            break
        stamp = max(stamp, i64(pages[buddy]["stamp"]))
        unlink_free(mm, z, buddy, order)
        pages[buddy]["kind"] = NONE
        pfn &= buddy
        order += 1
    tail = flags != FREE_NOTIFYING
    if not tail and order < MAX_ORDER - 1:
        # buddy_merge_likely: if the block that this one and its buddy would make has a free buddy
        # itself, leave this one at the tail, where it is less likely to be taken.
        merged = pfn & (pfn ^ (1 << order))
        tail = is_free_buddy(mm, z, merged ^ (2 << order), order + 1)
    pages[pfn]["stamp"] = stamp
    link_free(mm, z, pfn, order, migratetype, tail)
    if flags != FREE_SILENTLY_TO_TAIL:
        block_freed(mm, z, pfn, order, now_ns)
    return order


@kernel(inline=True)
def _expand(mm: Any, z: int, pfn: int, low: int, high: int, migratetype: int, mark: int) -> None:
    """Give the upper halves of a block back until it has order `low` (expand).

    mark: what it carried as a whole.
    """
    stamp = mm.pages[pfn]["stamp"]
    while high > low:
        high -= 1
        upper = pfn + (1 << high)
        mm.pages[upper]["stamp"] = stamp
        link_free(mm, z, upper, high, migratetype, False)
        block_split(mm, z, upper, high, mark)
    mm.pages[pfn]["order"] = low


@kernel(inline=True)
def _first_to_take(mm: Any, z: int, order: int, migratetype: int) -> int:
    """The first block of a free list that may be taken, or NO_PAGE."""
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    while True:
        pfn = list_next(mm.pages, sentinel)
        while pfn != sentinel and not may_take(mm, z, pfn, order):
            pfn = list_next(mm.pages, pfn)
        if pfn != sentinel:
            return pfn
        if order < MAX_ORDER or migratetype != MOVABLE or mm.zones[z]["deferred_pages"] == 0:
            return NO_PAGE
        init_section(mm, z)


@kernel(inner=True)
def rmqueue_smallest(mm: Any, z: int, order: int, migratetype: int) -> int:
    """The first block of the smallest order that serves, or NO_PAGE (__rmqueue_smallest)."""
    for current in range(order, MAX_ORDER + 1):
        if mm.zones[z]["nr_free"][current] == 0:
            continue
        pfn = _first_to_take(mm, z, current, migratetype)
        if pfn == NO_PAGE:
            continue
        mark = i64(mm.pages[pfn]["mark"])
        unlink_free(mm, z, pfn, current)
        mm.pages[pfn]["kind"] = NONE
        mm.zones[z]["free_pages"] -= 1 << order
        _expand(mm, z, pfn, order, current, migratetype, mark)
        return pfn
    return NO_PAGE


@kernel(inner=True)
def move_to_free_list(mm: Any, z: int, pfn: int, order: int, migratetype: int) -> None:
    """To the tail of another migratetype's list; the reported mark stays (move_to_free_list)."""
    block_unlinked(mm, z, pfn, order)
    list_del(mm.pages, pfn)
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    list_add_tail(mm.pages, tail_of_list(mm, z, order, migratetype, sentinel), pfn)
    mm.zones[z]["list_moves"] += 1


@kernel(inner=True)
def _fallback_type(migratetype: int, choice: int) -> int:
    """The first (0) and second (1) type to fall back to (fallbacks[])."""
    if choice == 0:
        return UNMOVABLE if migratetype == RECLAIMABLE else RECLAIMABLE
    return UNMOVABLE if migratetype == MOVABLE else MOVABLE


@kernel(inner=True)
def _can_steal(mm: Any, order: int, migratetype: int) -> bool:
    """can_steal_fallback; the first test covers orders of a pageblock and more, too."""
    half = i64(mm.kernel[0]["pageblock_order"]) // 2
    return order >= half or migratetype == RECLAIMABLE or migratetype == UNMOVABLE


@kernel(inner=True)
def _boost_watermark(mm: Any, z: int) -> None:
    """Fragmentation raises the watermarks until kswapd has looked (boost_watermark).

    For guests without kswapd see `found_above_mark`.
    """
    zone = mm.zones[z]
    block = 1 << i64(mm.kernel[0]["pageblock_order"])
    if block * 4 > zone["managed"]:
        return
    boost_max = zone["watermark_high"] * _BOOST_FACTOR // 10000
    if boost_max == 0:
        return
    zone["watermark_boost"] = min(zone["watermark_boost"] + block, max(block, boost_max))


@kernel(inner=True)
def _move_pageblock(mm: Any, z: int, pfn: int, migratetype: int) -> tuple[int, int]:
    """Move all free blocks of a pageblock to another type's lists (move_freepages_block).

    Returns (free pages moved, movable pages in use), or (0, 0) where the pageblock crosses the
    zone's end.  Where it crosses the zone's start, it is walked from `pfn` on.
    """
    size = 1 << i64(mm.kernel[0]["pageblock_order"])
    at = pfn & ~(size - 1)
    end = at + size
    if end > mm.zones[z]["end_pfn"]:
        return 0, 0
    if at < mm.zones[z]["start_pfn"]:
        at = pfn
    free = i64(0)
    movable = i64(0)
    while at < end:
        kind = mm.pages[at]["kind"]
        if kind == NONE:
            at += 1
            continue
        order = i64(mm.pages[at]["order"])
        if kind == BUDDY:
            move_to_free_list(mm, z, at, order, migratetype)
            free += 1 << order
        elif (
            kind == BALLOON  # Linux can move these (balloon compaction).
            or kind == CACHE
            or (kind == ALLOCATED and (mm.pages[at]["mark"] & MIGRATETYPE_MASK) == MOVABLE)
        ):
            movable += 1 << order
        at += 1 << order
    return free, movable


@kernel(inner=True)
def _steal(mm: Any, z: int, pfn: int, migratetype: int, whole_block: bool) -> None:
    """Make a block of another type available to `migratetype` (steal_suitable_fallback)."""
    pageblock_order = i64(mm.kernel[0]["pageblock_order"])
    order = i64(mm.pages[pfn]["order"])
    if order >= pageblock_order:
        for block in range(pfn >> pageblock_order, (pfn + (1 << order)) >> pageblock_order):
            mm.pageblocks[block] = migratetype
        move_to_free_list(mm, z, pfn, order, migratetype)
        return
    _boost_watermark(mm, z)
    if whole_block:
        old_type = pageblock_type(mm, pfn)
        free, movable = _move_pageblock(mm, z, pfn, migratetype)
        if free > 0:
            alike = i64(0)
            if migratetype == MOVABLE:
                alike = movable
            elif old_type == MOVABLE:
                alike = (1 << pageblock_order) - (free + movable)
            if free + alike >= 1 << (pageblock_order - 1):
                mm.pageblocks[pfn >> pageblock_order] = migratetype
            return
    move_to_free_list(mm, z, pfn, order, migratetype)


@kernel(inner=True)
def _find_fallback(mm: Any, z: int, order: int, migratetype: int) -> int:
    """The block of another type to take at this order, or NO_PAGE (find_suitable_fallback)."""
    if mm.zones[z]["nr_free"][order] == 0:
        return NO_PAGE
    for choice in range(NR_MIGRATETYPES - 1):
        pfn = _first_to_take(mm, z, order, _fallback_type(migratetype, choice))
        if pfn != NO_PAGE:
            return pfn
    return NO_PAGE


@kernel(inner=True)
def rmqueue_fallback(mm: Any, z: int, order: int, migratetype: int, nofragment: bool) -> bool:
    """Move a block of another type to this one's lists; whether there was any (__rmqueue_fallback).

    From the largest order down; but a movable request that cannot steal takes the smallest.
    """
    order_min = order
    if nofragment:
        order_min = max(order, i64(mm.kernel[0]["pageblock_order"]))
    for down in range(MAX_ORDER - order_min + 1):
        current = MAX_ORDER - down
        pfn = _find_fallback(mm, z, current, migratetype)
        if pfn == NO_PAGE:
            continue
        can_steal = _can_steal(mm, current, migratetype)
        if not can_steal and migratetype == MOVABLE and current > order:
            for up in range(order, MAX_ORDER + 1):
                pfn = _find_fallback(mm, z, up, migratetype)
                if pfn != NO_PAGE:
                    can_steal = _can_steal(mm, up, migratetype)
                    break
        _steal(mm, z, pfn, migratetype, can_steal)
        return True
    return False


@kernel(inner=True)
def rmqueue(mm: Any, z: int, order: int, migratetype: int, nofragment: bool) -> int:
    """One block from the zone's free lists, stealing if need be, or NO_PAGE (__rmqueue)."""
    while True:
        pfn = rmqueue_smallest(mm, z, order, migratetype)
        if pfn != NO_PAGE:
            return pfn
        if not rmqueue_fallback(mm, z, order, migratetype, nofragment):
            return NO_PAGE


@kernel(inner=True)
def watermark_ok(mm: Any, z: int, order: int, mark: int) -> bool:
    """Whether the zone stays above `mark` pages after this allocation (__zone_watermark_ok)."""
    free = i64(mm.zones[z]["free_pages"]) - ((1 << order) - 1)
    if free <= mark:
        return False
    if order == 0:
        return True
    for current in range(order, MAX_ORDER + 1):
        if mm.zones[z]["nr_free"][current] > 0:
            return True
    return False


@kernel(inner=True)
def isolate_free_block(mm: Any, z: int, pfn: int, order: int) -> bool:
    """Take one free block for the hinting task, unless the zone is short (__isolate_free_page).

    Pageblocks covered by an order of at least `pageblock_order - 1` become movable.
    """
    mark = i64(mm.zones[z]["watermark_min"]) + (1 << order)
    if not watermark_ok(mm, z, 0, mark):
        return False
    mm.zones[z]["free_pages"] -= 1 << order
    mm.zones[z]["isolated_pages"] += 1 << order
    unlink_free(mm, z, pfn, order)
    mm.pages[pfn]["kind"] = ISOLATED
    pageblock_order = i64(mm.kernel[0]["pageblock_order"])
    if order >= pageblock_order - 1:
        for block in range(
            pfn >> pageblock_order, ((pfn + (1 << order) - 1) >> pageblock_order) + 1
        ):
            mm.pageblocks[block] = MOVABLE
    return True


@kernel(inner=True)
def putback_isolated_block(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> int:
    """Give an isolated block back, to the tail, unnoticed (__putback_isolated_page).

    Returns the order of the free block that it is part of now.
    """
    mm.zones[z]["isolated_pages"] -= 1 << order
    migratetype = pageblock_type(mm, pfn)
    return free_one_block(mm, z, pfn, order, migratetype, FREE_SILENTLY_TO_TAIL, now_ns)


@kernel(inner=True)
def mark_reported(mm: Any, z: int, pfn: int) -> None:
    """Note on a free block that the host has been told of it (__SetPageReported)."""
    mm.pages[pfn]["mark"] |= MARK_REPORTED
    mm.zones[z]["reported_pages"] += 1 << i64(mm.pages[pfn]["order"])
