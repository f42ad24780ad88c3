"""Bringing a guest's memory up: a block's head is written once, nothing else touched."""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.buddy_kernels import FREE_SILENTLY_TO_TAIL, free_one_block, pageblock_type
from emulator.guest.mm.deferred_kernels import SECTION_PAGES
from emulator.guest.mm.layout import (
    MAX_ORDER,
    NR_FREE_LISTS,
    NR_LRU_LISTS,
    NR_MIGRATETYPES,
    NR_PCP_LISTS,
    RESERVED,
)
from emulator.guest.mm.list_kernels import (
    free_list_sentinel,
    list_init,
    lru_sentinel,
    pcp_list_sentinel,
)


@kernel(inner=True)
def largest_order_at(pfn: int, end: int) -> int:
    """The order of the largest aligned block that begins at `pfn` and ends by `end`."""
    order = i64(MAX_ORDER)
    while order > 0 and (pfn & ((1 << order) - 1) != 0 or pfn + (1 << order) > end):
        order -= 1
    return order


@kernel
def init_lists(mm: Any) -> None:
    """Empty free lists, per-CPU lists and LRU lists."""
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    for z in range(nr_zones):
        for index in range(NR_FREE_LISTS):
            order, migratetype = index // NR_MIGRATETYPES, index % NR_MIGRATETYPES
            list_init(mm.pages, free_list_sentinel(mm, z, order, migratetype))
    for pcp in range(nr_zones * i64(mm.kernel[0]["nr_cpus"])):
        for pindex in range(NR_PCP_LISTS):
            list_init(mm.pages, pcp_list_sentinel(mm, pcp, pindex))
    for lru in range(NR_LRU_LISTS):
        list_init(mm.pages, lru_sentinel(mm, lru))


@kernel
def init_zone(mm: Any, z: int, reserved_pages: int, deferring: bool) -> None:
    """Hand a zone's pages to its allocator, in blocks as large as alignment allows.

    The first `reserved_pages` belong to the kernel and are never freed.  Blocks go to the tail,
    ascending, as __free_pages_core does at boot; no mechanism is told.

    deferring: write the records of the first section that has a free block, and leave the rest of
    the largest blocks to `deferred_kernels`.
    """
    zone = mm.zones[z]
    end = i64(zone["end_pfn"])
    pfn = i64(zone["start_pfn"])
    boundary = pfn + reserved_pages
    while pfn < boundary:
        order = largest_order_at(pfn, boundary)
        mm.pages[pfn]["order"] = order
        mm.pages[pfn]["kind"] = RESERVED
        pfn += 1 << order
    last = end & ~((1 << MAX_ORDER) - 1)
    while pfn < end:
        order = largest_order_at(pfn, end)
        if deferring and pfn > boundary and pfn < last and pfn & (SECTION_PAGES - 1) == 0:
            zone["deferred_pages"] = last - pfn
            zone["free_pages"] += last - pfn
            zone["nr_free"][MAX_ORDER] += (last - pfn) >> MAX_ORDER
            pfn = last
            continue
        free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), FREE_SILENTLY_TO_TAIL, 0)
        pfn += 1 << order
