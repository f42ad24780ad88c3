"""The clock that chooses which pages of accounted RAM are swapped out.

The hand goes round over the pages: one that was accessed since it last came by is made old, one
that is old still is swapped out (second chance; Corbato 1968).
"""

from typing import Any

from devices.memory.atomics import compare_exchange
from devices.memory.jit import i64, kernel
from devices.memory.ram import HUGE_SHIFT
from devices.memory.swap_layout import PAGE_OLD, PAGE_SWAPPED, PAGE_YOUNG


@kernel
def swap_out_old(words: Any, huge: Any, marks: Any, first: int, wanted: int) -> tuple[int, int]:
    """Go from page `first` to the last one, or until `wanted` pages have been swapped out.

    words, huge, marks: as in RamView; a huge page of which a part is swapped out is split.
    Returns (the page to go on with, pages swapped out).
    """
    page = i64(first)
    found = i64(0)
    while page < words.size and found < wanted:
        mark = i64(marks[page]["mark"])
        if mark == PAGE_YOUNG and words[page] != 0:
            compare_exchange(marks, page, "mark", PAGE_YOUNG, PAGE_OLD)
        elif mark == PAGE_OLD:
            if compare_exchange(marks, page, "mark", PAGE_OLD, PAGE_SWAPPED) == PAGE_OLD:
                found += 1
                if huge.size != 0:
                    huge[page >> HUGE_SHIFT] = 0
        page += 1
    return page, found


@kernel
def count_resident(words: Any, marks: Any) -> int:
    """Pages of accounted RAM that the host has in memory; `marks`: empty if none are swapped."""
    resident = i64(0)
    for page in range(words.size):
        resident += i64(words[page] != 0)
    for page in range(marks.size):
        resident -= i64(marks[page]["mark"] == PAGE_SWAPPED)
    return resident
