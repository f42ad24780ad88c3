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
from devices.memory.ram import HUGE_SHIFT
from emulator.guest.host_fault_kernels import back_accounted, back_huge
from emulator.guest.mm.layout import ALLOCATED, RESERVED
from emulator.guest.swap_kernels import note_access

_GENERATION_MASK = 0xFFFFFFFF


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
                backed = back_accounted(ram, page)
                faults += backed
                huge += backed >> HUGE_SHIFT
            ram.words[page] = (page << 32) | generation
        actor["faults"] += faults
        actor["huge_faults"] += huge
        note_access(ram, cpu, pfn, size, faults)
    else:
        actor["huge_faults"] += back_huge(ram, pfn, size)
        for page in range(pfn, pfn + size):
            ram.words[page << ram.shift] = (page << 32) | generation
    actor["pages_touched"] += size
    actor["held_pages"] += size


@kernel(inline=True)
def fill_page(mm: Any, ram: Any, cpu: int, pfn: int, word: int) -> None:
    """Write a page of the page cache, whose words are those of its file."""
    actor = mm.actors[cpu]
    at = pfn << ram.shift
    faulted = i64(0)
    if ram.accounted != 0 and ram.words[at] == 0:
        faulted = back_accounted(ram, pfn)
    actor["huge_faults"] += (faulted >> HUGE_SHIFT) + back_huge(ram, pfn, 1)
    ram.words[at] = word
    actor["faults"] += faulted
    note_access(ram, cpu, pfn, 1, faulted)
    actor["pages_touched"] += 1


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
        actor["huge_faults"] += back_huge(ram, at, size)
        for page in range(at, at + size):
            if ram.accounted != 0 and ram.words[page] == 0:
                backed = back_accounted(ram, page)
                actor["faults"] += backed
                actor["huge_faults"] += backed >> HUGE_SHIFT
            ram.words[page << ram.shift] = (page << 32) | _GENERATION_MASK
        at += size
    note_access(ram, nr_cpus, at, 0, i64(actor["faults"]) - before)
