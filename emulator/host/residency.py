"""What guests have resident of the host's memory, by the host's own means."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.host.managers.manager import HostSight
from emulator.host.swap import resident_pages
from emulator.host.swap_kernels import count_resident


def resident_bytes(ram: GuestRam) -> int:
    """Of a file its blocks; of accounted RAM the pages that hold anything and are not swapped out,
    counted."""
    if ram.kind == "memfd":
        return ram.file_resident_bytes()
    view = ram.view()
    return int(count_resident(view.words, view.swap_marks())) * PAGE_SIZE


def host_sight(
    memory_bytes: int, guests: Sequence[tuple[GuestRam, npt.NDArray[Any]]], index: int
) -> Callable[[], HostSight]:
    """Looks at a host of `memory_bytes` for the guest of this number.

    guests: the RAM of each, and HOST[1]
    """
    looks = [_look_at(ram, account) for ram, account in guests]

    def look() -> HostSight:
        free = max(0, memory_bytes - sum(resident() for resident in looks))
        return HostSight(
            memory_bytes=memory_bytes, free_bytes=free, guests=len(guests), index=index
        )

    return look


def _look_at(ram: GuestRam, account: npt.NDArray[Any]) -> Callable[[], int]:
    """Tells what a guest has resident.  A host that can swap it out knows without counting."""
    if not ram.swap_actors:
        return lambda: resident_bytes(ram)
    swap, record = ram.swap_view(), account[0]
    return lambda: resident_pages(swap, record) * PAGE_SIZE
