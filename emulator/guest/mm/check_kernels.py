"""Walking all of a guest's memory: the invariants, and free lists rebuilt from the page array.

Only while nothing else works on the guest's memory, or with its locks held.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.buddy_kernels import (
    FREE_SILENTLY_TO_TAIL,
    free_one_block,
    is_free_buddy,
    link_free,
    pageblock_type,
)
from emulator.guest.mm.deferred_kernels import mark_deferred_free
from emulator.guest.mm.hook_kernels import lists_forgotten, may_merge
from emulator.guest.mm.init_kernels import largest_order_at
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    ISOLATED,
    MARK_REPORTED,
    MAX_ORDER,
    NONE,
    NR_KINDS,
    NR_LOWORDER_PCP_LISTS,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCP_LISTS,
    PCP,
)
from emulator.guest.mm.list_kernels import (
    free_list_sentinel,
    list_init,
    list_next,
    list_prev,
    pcp_list_sentinel,
)

_UNLISTED = NR_KINDS  # PAGE.kind while the lists are made anew: a free block that is on none

# What `check_zone` and `check_pcp` return: 0, or what is wrong.
CHECK_MESSAGES = (
    "sound",
    "a page lies in no block",
    "a block crosses its zone's end or is not aligned",
    "a page inside of a block heads one itself",
    "two free buddies are not merged",
    "nr_free differs from the blocks in the page array",
    "free_pages differs from the page array",
    "isolated_pages differs from the page array",
    "reported_pages differs from the page array",
    "a list holds a block that is not free, or of another order",
    "a list's links do not match",
    "the lists hold fewer or more blocks than the page array",
    "a per-CPU list holds a block that is not on it, or of another vCPU",
    "a per-CPU count differs from its lists",
    "a list holds what is no page of its zone",
)


@kernel(inner=True)
def count_pages(mm: Any, z: int, counts: Any) -> tuple[int, int]:
    """Pages of a zone by kind, into `counts` (i8[NR_KINDS]); (0, first page) or (error, page)."""
    at = i64(mm.zones[z]["start_pfn"])
    end = i64(mm.zones[z]["end_pfn"])
    while at < end:
        kind = i64(mm.pages[at]["kind"])
        if kind == NONE:
            return 1, at
        order = i64(mm.pages[at]["order"])
        size = i64(1) << order
        if order > MAX_ORDER or at & (size - 1) != 0 or at + size > end:
            return 2, at
        counts[kind] += size
        # (A vCPU that died while it split a block in use left marks of parts within.)
        for inner in range(at + 1, at + size if kind != ALLOCATED else at):
            if mm.pages[inner]["kind"] != NONE:
                return 3, inner
        if kind == BUDDY and order < MAX_ORDER and may_merge(mm, z, at, order):
            if is_free_buddy(mm, z, at ^ size, order):
                return 4, at
        at += size
    return 0, end


@kernel
def check_zone(mm: Any, z: int, counts: Any) -> tuple[int, int]:
    """All invariants of a zone; adds its pages by kind to `counts`.  (message, page frame)."""
    free_before, isolated_before = counts[BUDDY], counts[ISOLATED]
    error, where = count_pages(mm, z, counts)
    if error != 0:
        return error, where
    zone = mm.zones[z]
    reported = i64(0)
    listed = i64(0)
    for order in range(NR_ORDERS):
        blocks = i64(0)
        for migratetype in range(NR_MIGRATETYPES):
            sentinel = free_list_sentinel(mm, z, order, migratetype)
            before, at = sentinel, list_next(mm.pages, sentinel)
            while at != sentinel:
                if at < zone["start_pfn"] or at >= zone["end_pfn"]:
                    return 14, at
                page = mm.pages[at]
                if page["kind"] != BUDDY or page["order"] != order:
                    return 9, at
                if list_prev(mm.pages, at) != before:
                    return 10, at
                if page["mark"] & MARK_REPORTED:
                    reported += 1 << order
                blocks += 1
                listed += 1 << order
                if listed > zone["end_pfn"] - zone["start_pfn"]:
                    return 10, at  # A circle that does not come back to its sentinel.
                before, at = at, list_next(mm.pages, at)
            if list_prev(mm.pages, sentinel) != before:
                return 10, before
        if blocks != zone["nr_free"][order]:
            return 5, order
    if listed != counts[BUDDY] - free_before:
        return 11, 0
    if zone["free_pages"] != listed:
        return 6, 0
    if zone["isolated_pages"] != counts[ISOLATED] - isolated_before:
        return 7, 0
    if zone["reported_pages"] != reported:
        return 8, 0
    return 0, 0


@kernel
def check_pcp(mm: Any, cpu: int, z: int) -> tuple[int, int]:
    """The lists of one vCPU in one zone; (message, page frame)."""
    pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
    total = i64(0)
    for pindex in range(NR_PCP_LISTS):
        order = pindex // NR_MIGRATETYPES
        if pindex >= NR_LOWORDER_PCP_LISTS:
            order = i64(mm.kernel[0]["pageblock_order"])
        sentinel = pcp_list_sentinel(mm, pcp, pindex)
        before, at = sentinel, list_next(mm.pages, sentinel)
        while at != sentinel:
            if at < mm.zones[z]["start_pfn"] or at >= mm.zones[z]["end_pfn"]:
                return 14, at
            page = mm.pages[at]
            if page["kind"] != PCP or page["order"] != order or page["owner"] != cpu:
                return 12, at
            if list_prev(mm.pages, at) != before:
                return 10, at
            total += 1 << order
            if total > mm.pcps[pcp]["count"]:
                return 13, at
            before, at = at, list_next(mm.pages, at)
        if list_prev(mm.pages, sentinel) != before:
            return 10, before
    return (0 if total == mm.pcps[pcp]["count"] else 13), 0


@kernel(inner=True)
def _unlist_free_blocks(mm: Any, z: int) -> int:
    """Note on every free block that it is on no list; returns the isolated pages.

    What heads a free block inside of a larger block is a half of it: its owner died splitting it.
    """
    pages = mm.pages
    isolated = i64(0)
    at = i64(mm.zones[z]["start_pfn"])
    end = i64(mm.zones[z]["end_pfn"])
    while at < end:
        kind = pages[at]["kind"]
        if kind == NONE:
            at += 1
            continue
        size = i64(1) << i64(pages[at]["order"])
        for inner in range(at + 1, at + size):
            if pages[inner]["kind"] == BUDDY:
                pages[inner]["kind"] = NONE
        if kind == BUDDY:
            pages[at]["kind"] = _UNLISTED
        elif kind == ISOLATED:
            isolated += size
        at += size
    return isolated


@kernel
def rebuild_free_lists(mm: Any, z: int) -> int:
    """Make the zone's lists and counters anew from the page array; pages that were between two
    places become free.  Returns how many those were.

    For when the owner of the zone's lock died.  The lists' order and the reported marks are lost.
    """
    zone = mm.zones[z]
    pages = mm.pages
    lists_forgotten(mm, z)
    for order in range(NR_ORDERS):
        zone["nr_free"][order] = 0
        for migratetype in range(NR_MIGRATETYPES):
            list_init(pages, free_list_sentinel(mm, z, order, migratetype))
    mark_deferred_free(mm, z)
    zone["free_pages"] = 0
    zone["reported_pages"] = 0
    # All are taken off first: a block must not merge with one whose links are of the old lists.
    zone["isolated_pages"] = _unlist_free_blocks(mm, z)
    found = i64(0)
    at = i64(zone["start_pfn"])
    end = i64(zone["end_pfn"])
    while at < end:
        kind = pages[at]["kind"]
        order = i64(pages[at]["order"])
        if kind == NONE:
            stop = at
            while stop < end and stop < at + (1 << MAX_ORDER) and pages[stop]["kind"] == NONE:
                stop += 1
            order = largest_order_at(at, stop)
            pages[at]["stamp"] = 0
            found += 1 << order
        if kind == _UNLISTED and not may_merge(mm, z, at, order):
            mark = pages[at]["mark"]  # In the host's hands: it stays a block of its own, marked.
            link_free(mm, z, at, order, pageblock_type(mm, at), True)
            pages[at]["mark"] = mark
            zone["free_pages"] += 1 << order
        elif kind == NONE or kind == _UNLISTED:
            free_one_block(mm, z, at, order, pageblock_type(mm, at), FREE_SILENTLY_TO_TAIL, 0)
        at += 1 << order
    return found


@kernel
def rebuild_pcps(mm: Any, cpu: int) -> None:
    """Forget the lists of a vCPU that died; `free_owned` finds the pages."""
    for z in range(i64(mm.kernel[0]["nr_zones"])):
        pcp = cpu * i64(mm.kernel[0]["nr_zones"]) + z
        mm.pcps[pcp]["count"] = 0
        for pindex in range(NR_PCP_LISTS):
            list_init(mm.pages, pcp_list_sentinel(mm, pcp, pindex))
