"""The page cache: pages of files in guest memory (Linux 6.6, mm/filemap.c, swap.c, readahead.c).

A file is a range of *slots*, one for each of its pages; the slot says which page frame holds it, if
any, and the frame's record says which slot it holds.  Cached pages lie on two LRU lists, through
the links of their records: new ones at the head of the inactive list, a page that is read a second
time there at the head of the active one (mark_page_accessed; a write is no access, as from Linux
4.7 on; for mapped pages, reclaim looks at the accessed bit instead).

What lies on the disk is the host's (`IMAGE`), with a cache of its own in front of it that keeps
all that was ever read or written: a reader pays for the copy from there, or for the disk.

Every page holds a word made from its slot and version (`word_of`).  A reader checks it, and so does
write-back: a page that was discarded while in the cache, or dropped unwritten, is a violation.

Locking: the cache's lock guards lists, slots, image and files.  Pages are allocated before it is
taken and freed after it is released: no other lock is ever taken within it.

Different from Linux: one lock instead of one a file and one a node; no per-CPU batches in front of
the lists; no shadow entries (a refault is a first read); the read-ahead window does not grow.

Invariants: `pages == active + inactive == cached slots`; a page that is not cached, or clean, has
the version that is on the disk.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import (
    ALLOCATED,
    CACHE,
    LRU_ACTIVE,
    LRU_INACTIVE,
    MOVABLE,
    NO_PAGE,
    NO_SLOT_PAGE,
    SLOT_ACCESSED,
    SLOT_ACTIVE,
    SLOT_DIRTY,
    SLOT_MAPPED,
    SLOT_RECLAIM,
    SLOT_REFERENCED,
    SLOT_TORN,
    SLOT_WRITEBACK,
)
from emulator.guest.mm.list_kernels import list_add, list_add_tail, list_del, lru_sentinel
from emulator.guest.mm.lock_kernels import lock_cache, now, unlock_cache
from emulator.guest.mm.page_alloc_kernels import alloc_pages, free_pages
from emulator.guest.ram_kernels import fill_page
from emulator.guest.swap_kernels import note_access

_RETRIES_MAX = 16  # Fetches of pages that were reclaimed before they could be read.


@kernel(inline=True)
def word_of(slot: int, version: int) -> int:
    """What such a page holds: never 0, and never what a vCPU writes to memory of its own."""
    return ~((slot << 32) | version)


@kernel(inline=True)
def clear_flags(record: Any, mask: int) -> None:
    record["flags"] = i64(record["flags"]) & ~i64(mask)


@kernel(inline=True)
def set_flags(record: Any, mask: int) -> None:
    record["flags"] = i64(record["flags"]) | mask


@kernel(inner=True)
def settle_torn(mm: Any, ram: Any, slot: int) -> None:
    """Where a vCPU died while it wrote the page: find out how far it came."""
    record = mm.cache.slots[slot]
    if i64(record["flags"]) & SLOT_TORN:
        version = i64(record["version"])
        if ram.words[i64(record["pfn"]) << ram.shift] == word_of(slot, version + 1):
            record["version"] = version + 1
        clear_flags(record, SLOT_TORN)


@kernel(inner=True)
def check_content(mm: Any, ram: Any, actor: int, slot: int) -> None:
    """Compare what a cached page holds with what it must; counts violations."""
    settle_torn(mm, ram, slot)
    record = mm.cache.slots[slot]
    word = ram.words[i64(record["pfn"]) << ram.shift]
    note_access(ram, actor, i64(record["pfn"]), 1, 0)
    mm.actors[actor]["pages_checked"] += 1
    mm.actors[actor]["violations"] += i64(word != word_of(slot, i64(record["version"])))


# --- Into the lists, between them, and out.


@kernel(inner=True)
def insert_page(mm: Any, slot: int, pfn: int) -> None:
    """Put a page that the caller allocated and filled into the cache, at the inactive head."""
    record = mm.cache.slots[slot]
    control = mm.cache.control[0]
    list_add(mm.pages, lru_sentinel(mm, LRU_INACTIVE), pfn)
    record["flags"] = 0
    record["pfn"] = pfn
    control["pages"] += 1
    control["duplicate_pages"] += i64(mm.cache.image[slot]["cached"])
    mm.pages[pfn]["stamp"] = slot
    mm.pages[pfn]["kind"] = CACHE


@kernel(inner=True)
def remove_page(mm: Any, actor: int, slot: int) -> int:
    """Take a clean page out of the cache; it belongs to `actor` then.  Returns its page frame."""
    record = mm.cache.slots[slot]
    control = mm.cache.control[0]
    pfn = i64(record["pfn"])
    record["pfn"] = NO_SLOT_PAGE
    flags = i64(record["flags"])
    record["flags"] = 0
    control["active_pages"] -= i64(flags & SLOT_ACTIVE != 0)
    control["mapped_pages"] -= i64(flags & SLOT_MAPPED != 0)
    control["pages"] -= 1
    control["duplicate_pages"] -= i64(mm.cache.image[slot]["cached"])
    list_del(mm.pages, pfn)
    mm.pages[pfn]["owner"] = actor
    mm.pages[pfn]["kind"] = ALLOCATED
    return pfn


@kernel(inner=True)
def move_page(mm: Any, slot: int, lru: int, tail: bool) -> None:
    """To an end of one of the two lists."""
    record = mm.cache.slots[slot]
    control = mm.cache.control[0]
    pfn = i64(record["pfn"])
    list_del(mm.pages, pfn)
    if tail:
        list_add_tail(mm.pages, lru_sentinel(mm, lru), pfn)
    else:
        list_add(mm.pages, lru_sentinel(mm, lru), pfn)
    was_active = i64(record["flags"]) & SLOT_ACTIVE != 0
    if lru == LRU_ACTIVE and not was_active:
        control["active_pages"] += 1
        set_flags(record, SLOT_ACTIVE)
    elif lru == LRU_INACTIVE and was_active:
        control["active_pages"] -= 1
        clear_flags(record, SLOT_ACTIVE)


@kernel(inner=True)
def mark_accessed(mm: Any, slot: int) -> None:
    """inactive -> inactive, referenced -> active -> active, referenced (mark_page_accessed)."""
    record = mm.cache.slots[slot]
    flags = i64(record["flags"])
    if flags & SLOT_REFERENCED == 0:
        set_flags(record, SLOT_REFERENCED)
    elif flags & SLOT_ACTIVE == 0:
        move_page(mm, slot, LRU_ACTIVE, False)
        clear_flags(record, SLOT_REFERENCED)
        mm.cache.control[0]["activated_pages"] += 1


@kernel(inner=True)
def _make_dirty(mm: Any, slot: int, now_ns: int) -> None:
    record = mm.cache.slots[slot]
    flags = i64(record["flags"])
    clear_flags(record, SLOT_RECLAIM)
    if flags & SLOT_DIRTY == 0:
        file = mm.cache.files[i64(record["file"])]
        if file["dirty_pages"] == 0:
            file["dirtied_ns"] = now_ns
        file["dirty_pages"] += 1
        mm.cache.control[0]["dirty_pages"] += 1
        set_flags(record, SLOT_DIRTY)


# --- Reading.


@kernel(inner=True)
def _read_cached(mm: Any, ram: Any, cpu: int, first: int, count: int, mapped: bool) -> int:
    """Read slots from `first` on until one is not cached; how many."""
    for index in range(count):
        record = mm.cache.slots[first + index]
        if record["pfn"] == NO_SLOT_PAGE:
            return index
        check_content(mm, ram, cpu, first + index)
        if mapped:
            if i64(record["flags"]) & SLOT_MAPPED == 0:
                mm.cache.control[0]["mapped_pages"] += 1
            set_flags(record, SLOT_MAPPED | SLOT_ACCESSED)
        else:
            mark_accessed(mm, first + index)
    return count


@kernel(inner=True)
def _allocate(mm: Any, cpu: int, pfns: Any, count: int) -> int:
    """Up to `count` pages; how many.  That there are no more of them fails nothing."""
    for got in range(count):
        pfn = alloc_pages(mm, cpu, 0, MOVABLE)
        if pfn == NO_PAGE:
            if got > 0:
                mm.actors[cpu]["failed_allocations"] -= 1
            return got
        pfns[got] = pfn
    return count


@kernel(inner=True)
def _read_from_host(mm: Any, ram: Any, cpu: int, slot: int, pfn: int) -> None:
    """The host copies a page of the image into guest memory, from its own cache or the disk."""
    image = mm.cache.image[slot]
    control = mm.cache.control[0]
    cost_ns = i64(control["host_read_ns"])
    if image["cached"] == 0:
        image["cached"] = 1
        control["host_cache_pages"] += 1
        control["disk_read_pages"] += 1
        cost_ns += i64(control["disk_read_ns"])
    control["host_read_pages"] += 1
    mm.cache.io[cpu]["owed_ns"] += cost_ns
    fill_page(mm, ram, cpu, pfn, word_of(slot, i64(image["version"])))


@kernel(inner=True)
def _fetch(mm: Any, ram: Any, cpu: int, first: int, asked: int, count: int, pfns: Any) -> bool:
    """Read those of `count` slots that are not cached from the host, and put them into the cache.

    asked: of these, the rest is read ahead.  False: there was no memory for any.
    """
    slots = mm.cache.slots
    control = mm.cache.control[0]
    lock_cache(mm, cpu)
    missing = i64(0)
    for slot in range(first, first + count):
        missing += i64(slots[slot]["pfn"] == NO_SLOT_PAGE)
    unlock_cache(mm)
    missing = min(missing, pfns.size)
    got = _allocate(mm, cpu, pfns, missing)
    used = i64(0)
    lock_cache(mm, cpu)
    before = i64(-2)
    for slot in range(first, first + count):
        if used < got and slots[slot]["pfn"] == NO_SLOT_PAGE:
            pfn = i64(pfns[used])
            _read_from_host(mm, ram, cpu, slot, pfn)
            insert_page(mm, slot, pfn)
            used += 1
            control["missed_pages"] += i64(slot < first + asked)
            control["host_reads"] += i64(before != slot - 1)  # One request for what is adjacent.
            before = slot
    unlock_cache(mm)
    for index in range(used, got):
        free_pages(mm, cpu, i64(pfns[index]), 0)
    return got > 0 or missing == 0


@kernel(inner=True)
def read_pages(
    mm: Any, ram: Any, cpu: int, file: int, index: int, count: int, mapped: bool, pfns: Any
) -> int:
    """Read `count` pages of a file from page `index` on; fewer where memory has run out.

    mapped: through page tables, where they stay until they are unmapped.  A read that goes on where
    the last one of the file ended, or begins the file, reads ahead (page_cache_ra_unbounded; the
    window of VM_READAHEAD_PAGES does not grow from a smaller one).  pfns: u4[], for one request.
    """
    record = mm.cache.files[file]
    control = mm.cache.control[0]
    first = i64(record["first_slot"]) + index
    done, retries = i64(0), i64(0)
    while True:
        lock_cache(mm, cpu)
        control["major_faults"] += i64(mapped and retries > 0)  # It had to be fetched.
        done += _read_cached(mm, ram, cpu, first + done, count - done, mapped)
        sequential = index == 0 or i64(record["next_read"]) == index or done > 0
        if done == count or retries == _RETRIES_MAX:
            record["next_read"] = index + done
            control["reads"] += done
            unlock_cache(mm)
            return done
        unlock_cache(mm)
        wanted = count - done
        if sequential:
            wanted = max(wanted, i64(control["read_ahead_pages"]))
        wanted = min(wanted, i64(record["pages"]) - (index + done))
        if not _fetch(mm, ram, cpu, first + done, count - done, wanted, pfns):
            retries = i64(_RETRIES_MAX)
        else:
            retries += 1


# --- Writing.


@kernel(inner=True)
def _write_cached(mm: Any, ram: Any, cpu: int, slot: int, pfn: int, fresh: bool) -> None:
    """New content for a whole page; `fresh`: `pfn` is not in the cache yet.

    `writing` and the order of the stores let what a vCPU leaves half done be finished.
    """
    record = mm.cache.slots[slot]
    control = mm.cache.control[0]
    settle_torn(mm, ram, slot)
    version = i64(record["version"]) + 1
    control["writing"] = slot + 1
    fill_page(mm, ram, cpu, pfn, word_of(slot, version))
    if fresh:
        insert_page(mm, slot, pfn)
    _make_dirty(mm, slot, i64(mm.actors[cpu]["now_ns"]))
    record["version"] = version
    control["writing"] = 0


@kernel(inner=True)
def write_pages(mm: Any, ram: Any, cpu: int, file: int, index: int, count: int, pfns: Any) -> int:
    """Overwrite `count` whole pages of a file from page `index` on; fewer without memory.

    Nothing is read for it.  pfns: u4[1] or more.
    """
    slots = mm.cache.slots
    first = i64(mm.cache.files[file]["first_slot"]) + index
    mm.actors[cpu]["now_ns"] = now(mm)
    for slot in range(first, first + count):
        spare = i64(NO_PAGE)
        if slots[slot]["pfn"] == NO_SLOT_PAGE:  # A guess, without the lock.
            spare = alloc_pages(mm, cpu, 0, MOVABLE)
        lock_cache(mm, cpu)
        pfn = i64(slots[slot]["pfn"])
        cached = pfn != NO_SLOT_PAGE
        if cached:
            _write_cached(mm, ram, cpu, slot, pfn, False)
        elif spare != NO_PAGE:
            _write_cached(mm, ram, cpu, slot, spare, True)
        unlock_cache(mm)
        if spare != NO_PAGE and cached:
            free_pages(mm, cpu, spare, 0)
        if spare == NO_PAGE and not cached:
            return slot - first
    return count


@kernel
def unmap_slots(mm: Any, cpu: int, first: int, count: int) -> None:
    """Take slots out of the page tables; what was accessed there counts (zap_pte_range)."""
    lock_cache(mm, cpu)
    for slot in range(first, first + count):
        record = mm.cache.slots[slot]
        flags = i64(record["flags"])
        if flags & SLOT_MAPPED:
            mm.cache.control[0]["mapped_pages"] -= 1
            clear_flags(record, SLOT_MAPPED | SLOT_ACCESSED)
            if flags & SLOT_ACCESSED:
                mark_accessed(mm, slot)
    unlock_cache(mm)


@kernel
def drop_slots(mm: Any, cpu: int, first: int, count: int) -> int:
    """Drop what is clean and not mapped (invalidate_mapping_pages); how many pages became free."""
    kept = i64(SLOT_DIRTY | SLOT_WRITEBACK | SLOT_MAPPED | SLOT_TORN)
    at = first
    dropped = i64(0)
    while at < first + count:
        batch = i64(0)
        head = i64(0)
        lock_cache(mm, cpu)
        while at < first + count and batch < 32:
            record = mm.cache.slots[at]
            if record["pfn"] != NO_SLOT_PAGE and i64(record["flags"]) & kept == 0:
                pfn = remove_page(mm, cpu, at)
                mm.pages[pfn]["next"] = head
                head = pfn
                batch += 1
            at += 1
        mm.cache.control[0]["dropped_pages"] += batch
        unlock_cache(mm)
        free_chain(mm, cpu, head, batch)
        dropped += batch
    return dropped


@kernel(inner=True)
def free_chain(mm: Any, cpu: int, head: int, count: int) -> None:
    """Free pages that were taken out of the cache, chained by `next`, as a vCPU frees its own."""
    mm.actors[cpu]["now_ns"] = now(mm)
    pfn = head
    for _ in range(count):
        following = i64(mm.pages[pfn]["next"])
        free_pages(mm, cpu, pfn, 0)
        pfn = following
