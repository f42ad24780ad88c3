"""Page records that are written after boot (Linux 6.6: CONFIG_DEFERRED_STRUCT_PAGE_INIT).

Nearly all of a fresh guest's memory is free, in blocks of the largest order, each linked to its
neighbours: so much that writing one record a block to fresh memory takes tens of milliseconds for
80 GiB, all of it page faults.  Boot therefore writes those of a zone's first section only, as
Linux's memmap_init does, and leaves `deferred_pages` at its end: free, counted as free, and at the
tail of the list of largest movable blocks, without records.  The guest's kernel writes them right
after boot, a section at a time (deferred_init_memmap); who allocates all that has records before
that writes a section itself (deferred_grow_zone).  No mechanism's cycle runs before all are there
(page_alloc_init_late): for 80 GiB that is 0.03 s, and was 2 s where two vCPUs were at work and the
machine had to get that memory from a host of its own.

Nothing can come between the section's blocks and the list's tail: while some are deferred, no
movable block is taken from another type, and only mechanisms put largest blocks at a tail.

Different from Linux: what is deferred counts as free and managed already, and a section is as much
as fills a huge page with its records.
"""

from typing import Any, Final

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import BUDDY, MAX_ORDER, MOVABLE
from emulator.guest.mm.list_kernels import free_list_sentinel, list_add_tail
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone

SECTION_PAGES: Final = 1 << 17  # 512 MiB, whose records take 2 MiB
_LARGEST: Final = 1 << MAX_ORDER


@kernel
def first_deferred(mm: Any, z: int) -> int:
    """The first page without a record; where all have one, the end of the last largest block."""
    zone = mm.zones[z]
    return (i64(zone["end_pfn"]) & ~(_LARGEST - 1)) - i64(zone["deferred_pages"])


@kernel(inner=True)
def init_section(mm: Any, z: int) -> None:
    """Write the records of the zone's next section; its lock is held.

    `deferred_pages` last: if its writer dies, whoever rebuilds the lists takes them all as free.
    """
    first = first_deferred(mm, z)
    end = first + i64(mm.zones[z]["deferred_pages"])
    stop = min((first | (SECTION_PAGES - 1)) + 1, end)
    sentinel = free_list_sentinel(mm, z, MAX_ORDER, MOVABLE)
    for pfn in range(first, stop, _LARGEST):
        mm.pages[pfn]["order"] = MAX_ORDER
        list_add_tail(mm.pages, sentinel, pfn)
        mm.pages[pfn]["kind"] = BUDDY
    mm.zones[z]["deferred_pages"] = end - stop


@kernel
def init_next_section(mm: Any, z: int, actor: int) -> bool:
    """The same, by `actor`, who does not hold the lock; False if nothing was left to do."""
    lock_zone(mm, z, actor)
    found = i64(mm.zones[z]["deferred_pages"]) != 0
    if found:
        init_section(mm, z)
    unlock_zone(mm, z, actor)
    return found


@kernel(inner=True)
def mark_deferred_free(mm: Any, z: int) -> None:
    """Write what a rebuild of the lists goes by: each is a free block, on no list yet."""
    first = first_deferred(mm, z)
    end = first + i64(mm.zones[z]["deferred_pages"])
    for pfn in range(first, end, _LARGEST):
        mm.pages[pfn]["order"] = MAX_ORDER
        mm.pages[pfn]["kind"] = BUDDY
    mm.zones[z]["deferred_pages"] = 0
