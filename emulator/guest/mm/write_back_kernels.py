"""Writing dirty pages of files to the disk (Linux 6.6, fs/fs-writeback.c, mm/page-writeback.c).

The file that has been dirty for longest comes first; its pages in ascending order, from where its
last turn ended.  At its end, what was dirtied behind it makes it dirty since now: it goes to the
back of the queue, and no file keeps the others waiting.

    begin_write_back -> a batch of pages under write-back, with the versions that are written
    end_write_back      the host has them

A page under write-back may be dirtied again, and is then written again; it is not reclaimed.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import (
    LRU_INACTIVE,
    SLOT_DIRTY,
    SLOT_RECLAIM,
    SLOT_WRITEBACK,
)
from emulator.guest.mm.lock_kernels import lock_cache, now, unlock_cache
from emulator.guest.mm.page_cache_kernels import (
    check_content,
    clear_flags,
    move_page,
    set_flags,
)


@kernel(inner=True)
def _oldest_dirty(mm: Any, until_ns: int) -> int:
    """The file that has been dirty for longest, if since `until_ns` or before; -1 for none."""
    files = mm.cache.files
    oldest = i64(-1)
    since_ns = until_ns
    for file in range(files.size):
        if files[file]["dirty_pages"] > 0:
            dirtied_ns = i64(files[file]["dirtied_ns"])
            if dirtied_ns < since_ns or (oldest < 0 and dirtied_ns == since_ns):
                oldest, since_ns = i64(file), dirtied_ns
    return oldest


@kernel
def begin_write_back(mm: Any, ram: Any, actor: int, batch: Any, until_ns: int) -> int:
    """Put pages of one file that has been dirty since `until_ns` or before under write-back.

    batch: WRITE_BACK[], filled; returns how many pages, 0 if no file is that old.
    """
    lock_cache(mm, actor)
    count = i64(0)
    while count == 0:
        file = _oldest_dirty(mm, until_ns)
        if file < 0:
            break
        record = mm.cache.files[file]
        first = i64(record["first_slot"])
        at = i64(record["write_from"])
        while at < record["pages"] and count < batch.size:
            slot = mm.cache.slots[first + at]
            flags = i64(slot["flags"])
            if flags & SLOT_DIRTY and flags & SLOT_WRITEBACK == 0:
                check_content(mm, ram, actor, first + at)
                batch[count]["slot"] = first + at
                batch[count]["version"] = slot["version"]
                set_flags(slot, SLOT_WRITEBACK)
                clear_flags(slot, SLOT_DIRTY)
                record["dirty_pages"] -= 1
                count += 1
            at += 1
        record["write_from"] = at
        if at == record["pages"]:
            record["write_from"] = 0
            record["dirtied_ns"] = max(now(mm), until_ns + 1)
    mm.cache.control[0]["dirty_pages"] -= count
    mm.cache.control[0]["writeback_pages"] += count
    unlock_cache(mm)
    return count


@kernel
def end_write_back(mm: Any, actor: int, batch: Any, count: int) -> None:
    """The host has taken the pages: they are on the disk, and in the host's cache.

    What reclaim met meanwhile goes to the inactive tail: the next to be taken
    (folio_rotate_reclaimable).
    """
    control = mm.cache.control[0]
    lock_cache(mm, actor)
    for index in range(count):
        slot = i64(batch[index]["slot"])
        record = mm.cache.slots[slot]
        image = mm.cache.image[slot]
        image["version"] = batch[index]["version"]
        if image["cached"] == 0:
            image["cached"] = 1
            control["host_cache_pages"] += 1
            control["duplicate_pages"] += 1
        flags = i64(record["flags"])
        clear_flags(record, SLOT_WRITEBACK)
        if flags & SLOT_RECLAIM:
            clear_flags(record, SLOT_RECLAIM)
            if flags & SLOT_DIRTY == 0:
                move_page(mm, slot, LRU_INACTIVE, True)
    control["writeback_pages"] -= count
    control["written_pages"] += count
    unlock_cache(mm)
