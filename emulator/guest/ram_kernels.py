"""Touching guest memory and checking it: the oracle.

A vCPU stamps every page that it allocates with a word no other page or allocation has, and
verifies the word before it frees the page.  A discard of a page in use is found here, as a
violation, because the discard really takes the content away.

    word = pfn << 32 | generation         never 0, which is what a discarded page reads as
"""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import ALLOCATED, RESERVED

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
        for page in range(pfn, pfn + size):
            faults += i64(ram.words[page] == 0)
            ram.words[page] = (page << 32) | generation
        actor["faults"] += faults
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
    actor["pages_checked"] += size
    actor["held_pages"] -= size
    actor["violations"] += bad


@kernel
def touch_reserved(mm: Any, ram: Any, z: int) -> None:
    """Touch what the guest's kernel holds of zone `z` from boot."""
    at = i64(mm.zones[z]["start_pfn"])
    end = i64(mm.zones[z]["end_pfn"])
    actor = mm.actors[i64(mm.kernel[0]["nr_cpus"])]
    while at < end and mm.pages[at]["kind"] == RESERVED:
        size = i64(1) << i64(mm.pages[at]["order"])
        for page in range(at, at + size):
            ram.words[page << ram.shift] = (page << 32) | _GENERATION_MASK
        actor["faults"] += size * ram.accounted
        at += size
