"""Compiled loops that only a benchmark needs: what it times, without the touching and checking of
a workload, and the meeting of two that must begin together."""

from typing import Any

import numpy as np

from devices.memory.atomics import fetch_add, load_acquire, monotonic_ns, store_release
from devices.memory.jit import kernel
from emulator.bench.layout import LOOKS_A_CLOCK
from emulator.guest.mm.layout import MOVABLE, NO_PAGE
from emulator.guest.mm.page_alloc_kernels import alloc_pages, free_pages


@kernel
def pairs(mm: Any, cpu: int, order: int, count: int) -> int:
    """Allocate a block and free it, `count` times; how often there was one."""
    for done in range(count):
        pfn = alloc_pages(mm, cpu, order, MOVABLE)
        if pfn == NO_PAGE:
            return done
        free_pages(mm, cpu, pfn, order)
    return count


@kernel
def fill(mm: Any, cpu: int, held: Any) -> int:
    """Allocate a page for each entry of `held` (u4[n]); how many there were."""
    for index in range(len(held)):
        pfn = alloc_pages(mm, cpu, 0, MOVABLE)
        if pfn == NO_PAGE:
            return index
        held[index] = pfn
    return len(held)


@kernel
def free_all(mm: Any, cpu: int, held: Any) -> None:
    """Free the pages of `held`, in that order."""
    for index in range(len(held)):
        pfn: Any = np.int64(held[index])
        free_pages(mm, cpu, pfn, 0)


@kernel
def churn(mm: Any, cpu: int, held: Any, random: Any, count: int) -> int:
    """Free a random page of `held` and allocate one in its place, `count` times.

    `random`: u8[1], state of xorshift64, never 0.  Returns how often there was a page.
    """
    x = np.uint64(random[0])
    size = np.uint64(len(held))
    for done in range(count):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
        index = np.int64(x % size)
        old: Any = np.int64(held[index])
        free_pages(mm, cpu, old, 0)
        pfn = alloc_pages(mm, cpu, 0, MOVABLE)
        if pfn == NO_PAGE:
            return done
        held[index] = pfn
    random[0] = x
    return count


@kernel
def meet(meeting: Any, parties: int, limit_ns: int) -> bool:
    """Wait until `parties` have come; MEETING[1], zeroed.  False: not within the limit."""
    fetch_add(meeting, 0, "arrived", np.uint32(1))
    end_ns = monotonic_ns() + limit_ns
    looks = np.int64(0)
    while load_acquire(meeting, 0, "arrived") < parties:
        looks += 1
        if looks % LOOKS_A_CLOCK == 0 and monotonic_ns() > end_ns:
            return False
    return True


@kernel
def bounce(meeting: Any, me: int, rounds: int, limit_ns: int) -> int:
    """Pass the turn to and fro between two, 0 and 1; ns for all rounds, or -1: past the limit."""
    began_ns = monotonic_ns()
    looks = np.int64(0)
    for round_ in range(rounds):
        mine = 2 * round_ + me
        while load_acquire(meeting, 0, "turn") != mine:
            looks += 1
            if looks % LOOKS_A_CLOCK == 0 and monotonic_ns() - began_ns > limit_ns:
                return -1
        store_release(meeting, 0, "turn", np.uint32(mine + 1))
    elapsed_ns: int = monotonic_ns() - began_ns
    return elapsed_ns
