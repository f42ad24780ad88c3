"""What guests have resident of the host's memory, by the host's own means."""

from collections.abc import Callable, Sequence

import numpy as np

from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.host.managers.manager import HostSight


def resident_bytes(ram: GuestRam) -> int:
    """Of a file its blocks; of accounted RAM the pages that hold anything, counted."""
    if ram.kind == "memfd":
        return ram.file_resident_bytes()
    return int(np.count_nonzero(ram.view().words)) * PAGE_SIZE


def host_sight(
    memory_bytes: int, guests: Sequence[GuestRam], index: int
) -> Callable[[], HostSight]:
    """Looks at a host of `memory_bytes` for the guest of this number."""

    def look() -> HostSight:
        used = sum(resident_bytes(ram) for ram in guests)
        free = max(0, memory_bytes - used)
        return HostSight(
            memory_bytes=memory_bytes, free_bytes=free, guests=len(guests), index=index
        )

    return look
