"""What a compiler does to memory: each call does a batch and returns how much it did."""

from typing import Any

from devices.memory.jit import kernel
from emulator.guest.mm.layout import MOVABLE, NO_PAGE, UNMOVABLE
from emulator.guest.mm.lock_kernels import now
from emulator.workloads.kernels import alloc_touched
from emulator.workloads.layout import UNMOVABLE_EVERY


@kernel
def grow_batch(mm: Any, ram: Any, cpu: int, held: Any, first: int, count: int) -> int:
    """Let a process grow by `held[first : first + count]`, a page each; how many it got.

    One of UNMOVABLE_EVERY is the kernel's, for page tables and the like.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    for index in range(first, first + count):
        migratetype = UNMOVABLE if index % UNMOVABLE_EVERY == 0 else MOVABLE
        pfn = alloc_touched(mm, ram, cpu, 0, migratetype)
        if pfn == NO_PAGE:
            return index - first
        held[index]["pfn"] = pfn
        held[index]["order"] = 0
    return count
