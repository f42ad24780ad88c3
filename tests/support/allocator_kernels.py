"""Kernels that other kernels call, with an entry from Python: one step of the allocator each.

The zone's lock is not taken: a test is alone with its guest.
"""

from typing import Any

from devices.memory.jit import kernel
from emulator.guest.mm.buddy_kernels import (
    free_one_block,
    isolate_free_block,
    mark_reported,
    move_to_free_list,
    putback_isolated_block,
    rmqueue,
    rmqueue_fallback,
    rmqueue_smallest,
    watermark_ok,
)
from emulator.guest.mm.layout import ALLOCATED, NO_PAGE
from emulator.guest.mm.list_kernels import (
    list_add,
    list_add_tail,
    list_del,
    list_init,
    list_rotate_to_front,
)
from emulator.guest.mm.lock_kernels import bucket_of
from emulator.guest.mm.owner_kernels import allocated_head, claim_block, split_allocated
from emulator.guest.mm.page_alloc_kernels import alloc_pages, free_pages
from emulator.guest.ram_kernels import touch_block, verify_block

INIT, HEAD, TAIL, DEL, ROTATE = range(5)


@kernel
def alloc(mm: Any, cpu: int, order: int, migratetype: int) -> int:
    """A block for vCPU `cpu`, or NO_PAGE."""
    return alloc_pages(mm, cpu, order, migratetype)


@kernel
def free(mm: Any, cpu: int, pfn: int, order: int) -> None:
    """Free a block by vCPU `cpu`."""
    free_pages(mm, cpu, pfn, order)


@kernel
def split(mm: Any, pfn: int, order: int) -> bool:
    """Make a part of an allocated block one of its own."""
    head = allocated_head(mm, pfn, order)
    if head != NO_PAGE:
        split_allocated(mm, head, order)
    return head != NO_PAGE


@kernel
def claim(mm: Any, cpu: int, head: int, stamp: int) -> bool:
    """Make another vCPU's block one's own."""
    return claim_block(mm, cpu, head, stamp)


@kernel
def take(mm: Any, z: int, order: int, migratetype: int, way: int) -> int:
    """A block from the zone's lists, marked as in use by vCPU 0.

    way: 0 the lists of this type only; 1 with fallback; 2 with fallback, whole pageblocks only.
    """
    if way == 0:
        pfn = rmqueue_smallest(mm, z, order, migratetype)
    else:
        pfn = rmqueue(mm, z, order, migratetype, way == 2)
    if pfn != NO_PAGE:
        mm.pages[pfn]["owner"] = 0
        mm.pages[pfn]["mark"] = migratetype
        mm.pages[pfn]["kind"] = ALLOCATED
    return pfn


@kernel
def fall_back(mm: Any, z: int, order: int, migratetype: int, nofragment: bool) -> bool:
    """Steal a block of another type."""
    return rmqueue_fallback(mm, z, order, migratetype, nofragment)


@kernel
def give(mm: Any, z: int, pfn: int, order: int, migratetype: int, flags: int, now_ns: int) -> int:
    """Free a block to the zone's lists; its final order."""
    return free_one_block(mm, z, pfn, order, migratetype, flags, now_ns)


@kernel
def move(mm: Any, z: int, pfn: int, order: int, migratetype: int) -> None:
    """Move a free block to the list of another type."""
    move_to_free_list(mm, z, pfn, order, migratetype)


@kernel
def isolate(mm: Any, z: int, pfn: int, order: int) -> bool:
    """Take a free block for the hinting task."""
    return isolate_free_block(mm, z, pfn, order)


@kernel
def put_back(mm: Any, z: int, pfn: int, order: int) -> int:
    """Give it back; the order of the free block that it is part of now."""
    return putback_isolated_block(mm, z, pfn, order, 0)


@kernel
def report(mm: Any, z: int, pfn: int) -> None:
    """Mark a free block as reported."""
    mark_reported(mm, z, pfn)


@kernel
def above_watermark(mm: Any, z: int, order: int, mark: int) -> bool:
    """Whether the zone stays above `mark` pages."""
    return watermark_ok(mm, z, order, mark)


@kernel
def touch(mm: Any, ram: Any, cpu: int, pfn: int, order: int) -> None:
    """Stamp every page of a block."""
    touch_block(mm, ram, cpu, pfn, order)


@kernel
def verify(mm: Any, ram: Any, cpu: int, pfn: int, order: int) -> None:
    """Check every page of a block."""
    verify_block(mm, ram, cpu, pfn, order)


@kernel
def change_list(pages: Any, sentinel: int, pfn: int, way: int) -> None:
    """One step of a list: `way` is one of those below."""
    if way == INIT:
        list_init(pages, sentinel)
    elif way == HEAD:
        list_add(pages, sentinel, pfn)
    elif way == TAIL:
        list_add_tail(pages, sentinel, pfn)
    elif way == DEL:
        list_del(pages, pfn)
    else:
        list_rotate_to_front(pages, sentinel, pfn)


@kernel
def count_values(values: Any, counts: Any) -> None:
    """Count each value in its bucket of a histogram."""
    for value in values:
        counts[bucket_of(value)] += 1
