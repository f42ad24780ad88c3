"""Applying a recorded trace: each call does what may be done, and stops where it must wait."""

from typing import Any

import numpy as np

from devices.memory.atomics import load_acquire, pause, store_release
from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import ALLOCATED, MAX_ORDER, MOVABLE, NO_PAGE, NR_MIGRATETYPES
from emulator.guest.mm.lock_kernels import now
from emulator.guest.mm.owner_kernels import allocated_head, claim_block, split_allocated
from emulator.guest.ram_kernels import verify_block
from emulator.traces.layout import ALLOC
from emulator.workloads.kernels import alloc_touched, free_verified
from emulator.workloads.layout import NO_BLOCK, TURN_SPINS_MAX


@kernel(inner=True)
def _wait_for_turn(slots: Any, slot: int, turn: int) -> bool:
    """Whether it is this operation's turn, after a short spin."""
    for _ in range(TURN_SPINS_MAX):
        if load_acquire(slots, slot, "turn") == turn:
            return True
        pause()
    return False


@kernel(inner=True)
def _alloc(mm: Any, ram: Any, operation: Any, slot: Any) -> bool:
    """Fill a slot; False: out of memory."""
    order = min(i64(operation["order"]), MAX_ORDER)
    migratetype = i64(operation["migratetype"])
    if migratetype >= NR_MIGRATETYPES:
        migratetype = i64(MOVABLE)
    pfn = alloc_touched(mm, ram, i64(operation["cpu"]), order, migratetype)
    slot["pfn"] = NO_BLOCK if pfn == NO_PAGE else pfn
    if pfn == NO_PAGE:
        return False
    slot["stamp"] = mm.pages[pfn]["stamp"]
    return True


@kernel(inner=True)
def _free(mm: Any, ram: Any, operation: Any, slot: Any) -> bool:
    """Free a slot's block or a part of it; False: there is none, or its owner has died."""
    if slot["pfn"] == NO_BLOCK:
        return False
    pfn = i64(slot["pfn"]) + i64(operation["offset"])
    order = min(i64(operation["order"]), MAX_ORDER)
    cpu = i64(operation["cpu"])
    head = allocated_head(mm, pfn, order)
    if head == NO_PAGE or not claim_block(mm, cpu, head, slot["stamp"]):
        return False
    split_allocated(mm, head, order)
    free_verified(mm, ram, cpu, pfn, order)
    return True


@kernel
def replay_batch(
    mm: Any, ram: Any, operations: Any, turns: Any, slots: Any, progress: Any, first: int, end: int
) -> int:
    """Apply `operations[first:end]` until one must wait for another vCPU; how many it applied."""
    for index in range(first, end):
        operation = operations[index]
        cpu = i64(operation["cpu"])
        number = i64(operation["slot"])
        turn = i64(turns[index])
        if load_acquire(slots, number, "turn") != turn and not _wait_for_turn(slots, number, turn):
            return index - first
        if index == first:
            mm.actors[cpu]["now_ns"] = now(mm)
        if operation["kind"] == ALLOC:
            done = _alloc(mm, ram, operation, slots[number])
        else:
            done = _free(mm, ram, operation, slots[number])
        progress[cpu]["applied"] += i64(done)
        progress[cpu]["skipped"] += i64(not done)
        store_release(slots, number, "turn", np.uint32(turn + 1))
    return end - first


@kernel
def verify_owned(mm: Any, ram: Any, cpu: int) -> int:
    """Check every page that `cpu` still has in use; how many pages those are."""
    pages = i64(0)
    at = i64(0)
    held = mm.actors[cpu]["held_pages"]
    while at < mm.kernel[0]["nr_pages"]:
        page = mm.pages[at]
        if page["kind"] == 0:
            at += 1  # Another vCPU is just freeing or splitting it.
            continue
        order = i64(page["order"])
        if page["kind"] == ALLOCATED and page["owner"] == cpu:
            verify_block(mm, ram, cpu, at, order)
            pages += 1 << order
        at += 1 << order
    mm.actors[cpu]["held_pages"] = held
    return pages
