"""What the host learns when the guest accesses memory that it can swap out.

As with a mechanism's hooks, the class of `RamView.swap` decides whether any of this is compiled in.

Not modelled: read-ahead from the swap (a page is one read), and waiting in the middle of a batch:
an actor pays when it comes to its end (`SwapIn.settle`).
"""

from typing import Any

from numba.core.extending import overload

from devices.memory.atomics import exchange
from devices.memory.jit import i64, kernel
from devices.memory.ram import SwapView
from devices.memory.swap_layout import PAGE_SWAPPED, PAGE_YOUNG


@kernel(inner=True)
def bring_back(ram: Any, actor: int, first: int, count: int, faulted: int) -> None:
    """See `note_access`."""
    back = i64(0)
    for page in range(first, first + count):
        if ram.swap.marks[page]["mark"] != PAGE_YOUNG:
            back += i64(exchange(ram.swap.marks, page, "mark", PAGE_YOUNG) == PAGE_SWAPPED)
    ram.swap.traffic[actor]["faulted_pages"] += faulted
    ram.swap.traffic[actor]["swapped_in_pages"] += back


def note_access(ram: Any, actor: int, first: int, count: int, faulted: int) -> None:
    """An actor accesses pages: what of them was swapped out comes back.

    faulted: how many of them, or of their neighbours, the host had nothing behind.
    """
    if isinstance(ram.swap, SwapView):  # This body serves uncompiled runs.
        bring_back(ram, actor, first, count, faulted)


@overload(note_access, strict=False)
def _note_access(ram: Any, actor: Any, first: Any, count: Any, faulted: Any) -> Any:
    if ram.types[ram.fields.index("swap")].instance_class is not SwapView:
        return lambda ram, actor, first, count, faulted: None
    return lambda ram, actor, first, count, faulted: bring_back(ram, actor, first, count, faulted)
