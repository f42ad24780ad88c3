"""The compiled loops of the workloads: each call does a batch and returns how much it did.

Every block is touched when it is allocated, stamped, and verified before it is freed
(`ram_kernels`).
"""

from typing import Any

import numpy as np

from devices.memory.atomics import monotonic_ns, prefetch_write
from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import MOVABLE, NO_PAGE, RECLAIMABLE, UNMOVABLE
from emulator.guest.mm.lock_kernels import bucket_of, now
from emulator.guest.mm.page_alloc_kernels import alloc_pages, free_pages
from emulator.guest.ram_kernels import touch_block, verify_block
from emulator.workloads.layout import LATENCY_EVERY

_AHEAD = 8  # Blocks: far enough for their records to come from memory meanwhile.


@kernel(inner=True)
def _timed_alloc(mm: Any, cpu: int, order: int, migratetype: int) -> int:
    """One allocation whose latency is counted (real time only)."""
    actor = mm.actors[cpu]
    if mm.kernel[0]["virtual"] != 0:
        actor["now_ns"] = now(mm)
        return alloc_pages(mm, cpu, order, migratetype)
    began_ns = monotonic_ns()
    pfn = alloc_pages(mm, cpu, order, migratetype)
    ended_ns = monotonic_ns()
    actor["alloc_latency_ns"][bucket_of(ended_ns - began_ns)] += 1
    actor["now_ns"] = ended_ns
    return pfn


@kernel(inner=True)
def alloc_touched(mm: Any, ram: Any, cpu: int, order: int, migratetype: int) -> int:
    """Allocate a block and write every page of it; its page frame, or NO_PAGE."""
    actor = mm.actors[cpu]
    if actor["operations"] % LATENCY_EVERY == 0:
        pfn = _timed_alloc(mm, cpu, order, migratetype)
    else:
        pfn = alloc_pages(mm, cpu, order, migratetype)
    if pfn != NO_PAGE:
        # What comes next on a per-CPU list, most likely, is touched next.
        prefetch_write(ram.words, i64(mm.pages[pfn]["next"]) << ram.shift)
        touch_block(mm, ram, cpu, pfn, order)
        actor["operations"] += 1
    return pfn


@kernel(inner=True)
def free_verified(mm: Any, ram: Any, cpu: int, pfn: int, order: int) -> None:
    """Check every page of a block and free it."""
    verify_block(mm, ram, cpu, pfn, order)
    free_pages(mm, cpu, pfn, order)
    actor = mm.actors[cpu]
    actor["operations"] += 1
    if actor["operations"] % LATENCY_EVERY == 0:
        actor["now_ns"] = now(mm)


@kernel
def alloc_batch(mm: Any, ram: Any, cpu: int, held: Any, first: int, count: int, order: int) -> int:
    """Allocate movable blocks into `held[first : first + count]`; how many it got."""
    mm.actors[cpu]["now_ns"] = now(mm)
    for index in range(first, first + count):
        pfn = alloc_touched(mm, ram, cpu, order, MOVABLE)
        if pfn == NO_PAGE:
            return index - first
        held[index]["pfn"] = pfn
        held[index]["order"] = order
    return count


@kernel
def free_batch(mm: Any, ram: Any, cpu: int, held: Any, first: int, count: int) -> int:
    """Verify and free `held[first : first + count]`, in that order."""
    mm.actors[cpu]["now_ns"] = now(mm)
    last = i64(first) + count - 1
    for index in range(first, first + count):
        ahead = i64(held[min(index + _AHEAD, last)]["pfn"])
        prefetch_write(mm.pages, ahead)
        prefetch_write(ram.words, ahead << ram.shift)
        pfn, order = i64(held[index]["pfn"]), i64(held[index]["order"])
        free_verified(mm, ram, cpu, pfn, order)
    return count


@kernel(inner=True)
def next_random(state: Any) -> int:
    """xorshift64 (Marsaglia 2003): 63 random bits from state that the caller passes in."""
    x = np.uint64(state[0]["random"])
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0]["random"] = i64(x)
    return i64(x >> np.uint64(1))


@kernel(inner=True)
def random_order(state: Any) -> int:
    """Small orders far more often than large ones, as kernel traces show: half as many each."""
    bits = next_random(state)
    order = i64(0)
    while order < state[0]["order_max"] and bits & 1 == 1:
        bits >>= 1
        order += 1
    return order


@kernel
def churn_batch(mm: Any, ram: Any, cpu: int, held: Any, state: Any, count: int) -> int:
    """`count` allocations or frees of random blocks, leaning back towards the level held.

    Nine allocations of ten are movable; the rest is unmovable or reclaimable.  Returns `count`.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    control = state[0]
    for _ in range(count):
        bits = next_random(state)
        # Above the level three of four operations free, below it three of four allocate.
        above = control["held_pages"] > control["level_pages"]
        frees = (bits & 3 != 0) == above
        if control["held"] == 0 or (not frees and control["held"] < held.size):
            order = random_order(state)
            choice = (bits >> 2) % 20
            migratetype = MOVABLE
            if choice < 2:
                migratetype = UNMOVABLE if choice == 0 else RECLAIMABLE
            pfn = alloc_touched(mm, ram, cpu, order, migratetype)
            if pfn != NO_PAGE:
                entry = held[i64(control["held"])]
                entry["pfn"] = pfn
                entry["order"] = order
                control["held"] += 1
                control["held_pages"] += 1 << order
                continue
            if control["held"] == 0:
                continue
        victim = (bits >> 8) % i64(control["held"])
        pfn, order = i64(held[victim]["pfn"]), i64(held[victim]["order"])
        free_verified(mm, ram, cpu, pfn, order)
        control["held"] -= 1
        control["held_pages"] -= 1 << order
        last = held[i64(control["held"])]
        held[victim]["pfn"] = last["pfn"]
        held[victim]["order"] = last["order"]
    return count
