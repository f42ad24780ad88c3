"""Walking all of the page cache: its invariants, and its lists rebuilt after a death.

Only while nothing else works on it, or with its lock held.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import (
    ALLOCATED,
    CACHE,
    LRU_ACTIVE,
    NO_SLOT_PAGE,
    NR_LRU_LISTS,
    SLOT_ACTIVE,
    SLOT_DIRTY,
    SLOT_MAPPED,
    SLOT_TORN,
    SLOT_WRITEBACK,
)
from emulator.guest.mm.list_kernels import (
    list_add_tail,
    list_init,
    list_next,
    list_prev,
    lru_sentinel,
)
from emulator.guest.mm.page_cache_kernels import set_flags

# What `check_cache` returns: 0, or what is wrong.
CACHE_MESSAGES = (
    "sound",
    "an LRU list holds what is no page of the cache",
    "an LRU list's links do not match",
    "a cached page and its slot do not point at each other",
    "a page is on the wrong LRU list",
    "a page is neither on the disk nor in the cache: it was dropped unwritten",
    "a clean page differs from the disk",
    "the page cache's counts differ from its slots",
    "a file's dirty pages differ from its slots",
    "the LRU lists hold fewer or more pages than are marked so",
)


@kernel(inner=True)
def _check_lists(mm: Any) -> tuple[int, int, int]:
    """Both LRU lists; (message, page frame, pages on them)."""
    nr_pages = i64(mm.kernel[0]["nr_pages"])
    listed = i64(0)
    for lru in range(NR_LRU_LISTS):
        sentinel = lru_sentinel(mm, lru)
        before, at = sentinel, list_next(mm.pages, sentinel)
        while at != sentinel:
            if at >= nr_pages or mm.pages[at]["kind"] != CACHE:
                return 1, at, listed
            if list_prev(mm.pages, at) != before or listed > nr_pages:
                return 2, at, listed
            slot = i64(mm.pages[at]["stamp"])
            if slot >= mm.cache.slots.size or mm.cache.slots[slot]["pfn"] != at:
                return 3, at, listed
            if (i64(mm.cache.slots[slot]["flags"]) & SLOT_ACTIVE != 0) != (lru == LRU_ACTIVE):
                return 4, at, listed
            listed += 1
            before, at = at, list_next(mm.pages, at)
        if list_prev(mm.pages, sentinel) != before:
            return 2, before, listed
    return 0, 0, listed


@kernel(inner=True)
def count_slots(mm: Any, file: int, counts: Any) -> tuple[int, int, int]:
    """Add a file's slots to `counts` (PAGE_CACHE[1]); (message, slot, its dirty pages)."""
    cache = mm.cache
    found = counts[0]
    first = i64(cache.files[file]["first_slot"])
    dirty = i64(0)
    for slot in range(first, first + i64(cache.files[file]["pages"])):
        record = cache.slots[slot]
        flags = i64(record["flags"])
        same = record["version"] == cache.image[slot]["version"]
        found["host_cache_pages"] += i64(cache.image[slot]["cached"])
        if record["pfn"] == NO_SLOT_PAGE:
            if not same:
                return 5, slot, dirty
            continue
        pfn = i64(record["pfn"])
        if mm.pages[pfn]["kind"] != CACHE or mm.pages[pfn]["stamp"] != slot:
            return 3, pfn, dirty
        if flags & (SLOT_DIRTY | SLOT_WRITEBACK | SLOT_TORN) == 0 and not same:
            return 6, slot, dirty
        found["pages"] += 1
        found["duplicate_pages"] += i64(cache.image[slot]["cached"])
        found["active_pages"] += i64(flags & SLOT_ACTIVE != 0)
        found["mapped_pages"] += i64(flags & SLOT_MAPPED != 0)
        found["writeback_pages"] += i64(flags & SLOT_WRITEBACK != 0)
        dirty += i64(flags & SLOT_DIRTY != 0)
    found["dirty_pages"] += dirty
    return 0, 0, dirty


@kernel
def check_cache(mm: Any, cached: int, counts: Any) -> tuple[int, int]:
    """All invariants of the page cache; (message, page frame or slot).

    cached: pages of kind CACHE, as `check_zone` counted them.  counts: PAGE_CACHE[1] of zeros.
    """
    error, where, listed = _check_lists(mm)
    if error != 0:
        return error, where
    if listed != cached:
        return 9, 0
    for file in range(mm.cache.files.size):
        error, where, dirty = count_slots(mm, file, counts)
        if error != 0:
            return error, where
        if dirty != mm.cache.files[file]["dirty_pages"]:
            return 8, file
    control, found = mm.cache.control[0], counts[0]
    if (
        control["pages"] != found["pages"]
        or control["pages"] != listed
        or control["active_pages"] != found["active_pages"]
        or control["mapped_pages"] != found["mapped_pages"]
        or control["dirty_pages"] != found["dirty_pages"]
        or control["writeback_pages"] != found["writeback_pages"]
        or control["host_cache_pages"] != found["host_cache_pages"]
        or control["duplicate_pages"] != found["duplicate_pages"]
    ):
        return 7, 0
    return 0, 0


@kernel(inner=True)
def _finish_writing(mm: Any) -> None:
    """The page that the dead vCPU was writing: not in the cache, it was not written at all;
    otherwise it holds the old content or the new, and whoever looks at it next finds out.
    """
    slot = i64(mm.cache.control[0]["writing"]) - 1
    if slot < 0:
        return
    record = mm.cache.slots[slot]
    if record["pfn"] == NO_SLOT_PAGE:
        record["version"] = mm.cache.image[slot]["version"]
    else:
        set_flags(record, SLOT_TORN | SLOT_DIRTY)
    mm.cache.control[0]["writing"] = 0


@kernel
def rebuild_cache(mm: Any, owner: int, counts: Any) -> int:
    """Make lists and counts anew from pages and slots, after the owner of the lock died.

    Pages that it was putting in or taking out become its own: `free_owned` frees them.  The order
    of the lists is lost.  counts: PAGE_CACHE[1] of zeros.  Returns how many pages became its own.
    """
    cache = mm.cache
    for slot in range(cache.slots.size):
        record = cache.slots[slot]
        pfn = i64(record["pfn"])
        if pfn == NO_SLOT_PAGE:
            record["flags"] = 0
        elif mm.pages[pfn]["kind"] != CACHE or mm.pages[pfn]["stamp"] != slot:
            record["pfn"] = NO_SLOT_PAGE
            record["flags"] = 0
    _finish_writing(mm)
    for lru in range(NR_LRU_LISTS):
        list_init(mm.pages, lru_sentinel(mm, lru))
    lost = i64(0)
    for pfn in range(i64(mm.kernel[0]["nr_pages"])):
        if mm.pages[pfn]["kind"] != CACHE:
            continue
        slot = i64(mm.pages[pfn]["stamp"])
        if cache.slots[slot]["pfn"] != pfn:
            mm.pages[pfn]["owner"] = owner
            mm.pages[pfn]["kind"] = ALLOCATED
            lost += 1
            continue
        active = i64(cache.slots[slot]["flags"]) & SLOT_ACTIVE != 0
        list_add_tail(mm.pages, lru_sentinel(mm, i64(active)), pfn)
    for file in range(cache.files.size):
        _, _, dirty = count_slots(mm, file, counts)
        cache.files[file]["dirty_pages"] = dirty
    control, found = cache.control[0], counts[0]
    control["pages"] = found["pages"]
    control["active_pages"] = found["active_pages"]
    control["mapped_pages"] = found["mapped_pages"]
    control["dirty_pages"] = found["dirty_pages"]
    control["writeback_pages"] = found["writeback_pages"]
    control["host_cache_pages"] = found["host_cache_pages"]
    control["duplicate_pages"] = found["duplicate_pages"]
    return lost
