"""Whose an allocated block is: found, claimed by who frees it for another, split, taken back.

A block of another vCPU is claimed before it is split and freed: that one may have died, and what it
held may be taken back at the same time.  Who changes `owner` first has the block.  A vCPU that died
allocates no more, so that an owner that was read is not met again where it is gone.
"""

from typing import Any

import numpy as np

from devices.memory.atomics import compare_exchange, load_acquire
from devices.memory.jit import i64, kernel
from emulator.guest.mm.buddy_kernels import free_one_block, pageblock_type
from emulator.guest.mm.layout import ALLOCATED, MAX_ORDER, NO_PAGE, NONE, PCP


@kernel(inner=True)
def allocated_head(mm: Any, pfn: int, order: int) -> int:
    """The head of the allocated block of at least that order which holds `pfn`, or NO_PAGE."""
    for whole in range(order, MAX_ORDER + 1):
        head = pfn & ~((i64(1) << whole) - 1)
        if mm.pages[head]["kind"] == ALLOCATED and mm.pages[head]["order"] == whole:
            return head
    return NO_PAGE


@kernel(inner=True)
def claim_block(mm: Any, cpu: int, head: int, stamp: int) -> bool:
    """Make the allocated block of that stamp `cpu`'s own; False: it is not that block any more, or
    is being taken back."""
    owner = load_acquire(mm.pages, head, "owner")
    if mm.pages[head]["stamp"] != stamp or owner >= mm.kernel[0]["nr_cpus"]:
        return False
    if owner == cpu:
        return True
    return compare_exchange(mm.pages, head, "owner", owner, np.uint8(cpu)) == owner


@kernel(inner=True)
def split_allocated(mm: Any, head: int, order: int) -> None:
    """Make each part of `1 << order` pages of an allocated block a block of its own (split_page).

    The block is the caller's.
    """
    page = mm.pages[head]
    # The parts behind the first are marked before the whole becomes the first of them.
    for part in range(head + (1 << order), head + (1 << i64(page["order"])), 1 << order):
        mm.pages[part]["stamp"] = page["stamp"]
        mm.pages[part]["order"] = order
        mm.pages[part]["owner"] = page["owner"]
        mm.pages[part]["mark"] = page["mark"]
        mm.pages[part]["kind"] = ALLOCATED
    page["order"] = order


@kernel
def free_owned(mm: Any, z: int, owner: int, now_ns: int) -> int:
    """Free every page of zone `z` that the dead vCPU `owner` held; returns how many pages.

    With the zone's lock, in the name of the guest's kernel (actor `nr_cpus`).
    """
    kernel_actor = np.uint8(mm.kernel[0]["nr_cpus"])
    at = i64(mm.zones[z]["start_pfn"])
    end = i64(mm.zones[z]["end_pfn"])
    freed = i64(0)
    while at < end:
        page = mm.pages[at]
        kind = page["kind"]
        size = i64(1) << i64(page["order"]) if kind != NONE else i64(1)
        dead = np.uint8(owner)
        if (kind == PCP or kind == ALLOCATED) and page["owner"] == dead:
            if compare_exchange(mm.pages, at, "owner", dead, kernel_actor) == dead:
                order = i64(page["order"])
                page["stamp"] = 0
                for inner in range(at + 1, at + size):
                    if mm.pages[inner]["kind"] != NONE:  # It died while it split the block.
                        mm.pages[inner]["kind"] = NONE
                free_one_block(mm, z, at, order, pageblock_type(mm, at), 0, now_ns)
                freed += size
        at += size
    return freed
