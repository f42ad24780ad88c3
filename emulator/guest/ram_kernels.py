"""Touching guest memory and checking it: the oracle.

A vCPU stamps every page that it allocates with a word no other page or allocation has, and
verifies the word before it frees the page.  A discard of a page in use is found here, as a
violation, because the discard really takes the content away.

    word = pfn << 32 | generation         never 0, which is what a discarded page reads as

Both are accesses: a page that the host had swapped out comes back.  A program does not read its
memory again before it ends; that it is verified then stands for its having used it meanwhile.
"""

from typing import Any

from devices.memory.jit import i64, kernel
from devices.memory.ram import BACKED, HUGE_PAGES, HUGE_SHIFT
from emulator.guest.mm.layout import ALLOCATED, RESERVED
from emulator.guest.swap_kernels import note_access

_GENERATION_MASK = 0xFFFFFFFF


@kernel(inner=True)
def _back(ram: Any, page: int) -> int:
    """The host puts memory behind a page of accounted RAM; how many pages are resident by that.

    Where it may take huge pages, a touch of one whose 2 MiB have nothing behind them gets one.
    """
    if ram.huge.size == 0:
        return 1
    first = page & ~(HUGE_PAGES - 1)
    for other in range(first, first + HUGE_PAGES):
        if ram.words[other] != 0:
            return 1
    for other in range(first, first + HUGE_PAGES):
        ram.words[other] = BACKED
    ram.huge[first >> HUGE_SHIFT] = 1
    return HUGE_PAGES


@kernel(inline=True)
def touch_block(mm: Any, ram: Any, cpu: int, pfn: int, order: int) -> None:
    """Write the first word of every page of a block that `cpu` has just allocated."""
    actor = mm.actors[cpu]
    actor["generation"] += 1
    # The vCPU's number in the low bits: two vCPUs never write the same generation.
    generation = ((i64(actor["generation"]) << 8) + cpu + 1) & _GENERATION_MASK
    mm.pages[pfn]["stamp"] = generation
    size = i64(1) << order
    if ram.accounted != 0:
        faults = i64(0)
        huge = i64(0)
        for page in range(pfn, pfn + size):
            if ram.words[page] == 0:
                backed = _back(ram, page)
                faults += backed
                huge += backed >> HUGE_SHIFT
            ram.words[page] = (page << 32) | generation
        actor["faults"] += faults
        actor["huge_faults"] += huge
        note_access(ram, cpu, pfn, size, faults)
    else:
        for page in range(pfn, pfn + size):
            ram.words[page << ram.shift] = (page << 32) | generation
    actor["pages_touched"] += size
    actor["held_pages"] += size


@kernel(inline=True)
def verify_block(mm: Any, ram: Any, cpu: int, pfn: int, order: int) -> None:
    """Check every page of a block that is about to be freed; counts violations."""
    actor = mm.actors[cpu]
    size = i64(1) << order
    page_record = mm.pages[pfn]
    bad = i64(page_record["kind"] != ALLOCATED)
    generation = i64(page_record["stamp"])
    for page in range(pfn, pfn + size):
        bad += i64(ram.words[page << ram.shift] != ((page << 32) | generation))
    note_access(ram, cpu, pfn, size, 0)
    actor["pages_checked"] += size
    actor["held_pages"] -= size
    actor["violations"] += bad


@kernel
def touch_reserved(mm: Any, ram: Any, z: int) -> None:
    """Touch what the guest's kernel holds of zone `z` from boot."""
    at = i64(mm.zones[z]["start_pfn"])
    end = i64(mm.zones[z]["end_pfn"])
    nr_cpus = i64(mm.kernel[0]["nr_cpus"])
    actor = mm.actors[nr_cpus]
    before = i64(actor["faults"])
    while at < end and mm.pages[at]["kind"] == RESERVED:
        size = i64(1) << i64(mm.pages[at]["order"])
        for page in range(at, at + size):
            if ram.accounted != 0 and ram.words[page] == 0:
                backed = _back(ram, page)
                actor["faults"] += backed
                actor["huge_faults"] += backed >> HUGE_SHIFT
            ram.words[page << ram.shift] = (page << 32) | _GENERATION_MASK
        at += size
    note_access(ram, nr_cpus, at, 0, i64(actor["faults"]) - before)
