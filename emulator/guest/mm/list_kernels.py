"""Circular doubly linked lists through the page records (include/linux/list.h).

`at` may be a page frame or a sentinel; a list is empty when its sentinel points at itself.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import (
    NR_FREE_LISTS,
    NR_MIGRATETYPES,
    NR_PCP_LISTS,
)


@kernel(inline=True)
def free_list_sentinel(mm: Any, z: int, order: int, migratetype: int) -> int:
    """The list head of one free list of zone `z`."""
    nr_pages = i64(mm.kernel[0]["nr_pages"])
    return nr_pages + z * NR_FREE_LISTS + order * NR_MIGRATETYPES + migratetype


@kernel(inline=True)
def pcp_list_sentinel(mm: Any, pcp: int, pindex: int) -> int:
    """The list head of list `pindex` of per-CPU lists `pcp` (`cpu * nr_zones + zone`)."""
    nr_pages = i64(mm.kernel[0]["nr_pages"])
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    return nr_pages + nr_zones * NR_FREE_LISTS + pcp * NR_PCP_LISTS + pindex


@kernel(inline=True)
def lru_sentinel(mm: Any, lru: int) -> int:
    """The list head of LRU list `lru` of the page cache."""
    nr_pages = i64(mm.kernel[0]["nr_pages"])
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    pcps = nr_zones * i64(mm.kernel[0]["nr_cpus"])
    return nr_pages + nr_zones * NR_FREE_LISTS + pcps * NR_PCP_LISTS + lru


@kernel(inline=True)
def list_init(pages: Any, sentinel: int) -> None:
    pages[sentinel]["next"] = sentinel
    pages[sentinel]["prev"] = sentinel


@kernel(inline=True)
def list_next(pages: Any, at: int) -> int:
    return i64(pages[at]["next"])


@kernel(inline=True)
def list_prev(pages: Any, at: int) -> int:
    return i64(pages[at]["prev"])


@kernel(inline=True)
def list_insert(pages: Any, before: int, pfn: int, after: int) -> None:
    """Put `pfn` between two neighbours."""
    pages[pfn]["prev"] = before
    pages[pfn]["next"] = after
    pages[before]["next"] = pfn
    pages[after]["prev"] = pfn


@kernel(inline=True)
def list_add(pages: Any, sentinel: int, pfn: int) -> None:
    """At the head: the next to be taken."""
    list_insert(pages, sentinel, pfn, list_next(pages, sentinel))


@kernel(inline=True)
def list_add_tail(pages: Any, sentinel: int, pfn: int) -> None:
    list_insert(pages, list_prev(pages, sentinel), pfn, sentinel)


@kernel(inline=True)
def list_del(pages: Any, pfn: int) -> None:
    before, after = list_prev(pages, pfn), list_next(pages, pfn)
    pages[before]["next"] = after
    pages[after]["prev"] = before


@kernel(inline=True)
def list_rotate_to_front(pages: Any, sentinel: int, pfn: int) -> None:
    """Make `pfn` the head and keep the circle's order (list_rotate_to_front)."""
    list_del(pages, sentinel)
    list_insert(pages, list_prev(pages, pfn), sentinel, pfn)
