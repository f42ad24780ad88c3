"""What a compiler does to memory: each call does a batch and returns how much it did."""

from typing import Any, NamedTuple

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import MOVABLE, NO_PAGE, UNMOVABLE
from emulator.guest.mm.lock_kernels import now
from emulator.workloads.kernels import alloc_touched
from emulator.workloads.layout import OUTPUT_PIECE, UNMOVABLE_EVERY


class Output(NamedTuple):
    """A file that a process writes.  held: HELD[n], the pages of it and of others;  file:
    OUTPUT[1]."""

    held: Any
    file: Any


@kernel(inner=True)
def _write(mm: Any, ram: Any, cpu: int, output: Any, count: int) -> bool:
    """Add `count` pages to a file in the page cache; False: out of memory."""
    file = output.file[0]
    for index in range(i64(file["written"]), i64(file["written"]) + count):
        pfn = alloc_touched(mm, ram, cpu, 0, MOVABLE)
        if pfn == NO_PAGE:
            return False
        output.held[i64(file["first"]) + index]["pfn"] = pfn
        output.held[i64(file["first"]) + index]["order"] = 0
        file["written"] += 1
    return True


@kernel
def grow_batch(mm: Any, ram: Any, cpu: int, held: Any, output: Any, first: int, count: int) -> int:
    """Let a process grow by `held[first : first + count]`, a page each; how many it got.

    One of UNMOVABLE_EVERY is the kernel's, for page tables and the like.  As it grows it writes its
    file, OUTPUT_PIECE pages at a time, the last of them with its last page.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    size, pages = len(held), i64(output.file[0]["pages"])
    for index in range(first, first + count):
        migratetype = UNMOVABLE if index % UNMOVABLE_EVERY == 0 else MOVABLE
        pfn = alloc_touched(mm, ram, cpu, 0, migratetype)
        if pfn == NO_PAGE:
            return index - first
        held[index]["pfn"] = pfn
        held[index]["order"] = 0
        due = (index + 1) * pages // size - i64(output.file[0]["written"])
        if due >= OUTPUT_PIECE or (index == size - 1 and due > 0):
            if not _write(mm, ram, cpu, output, due):
                return index + 1 - first
    return count
