"""What guests have resident of the host's memory, by the host's own means."""

from collections.abc import Callable, Sequence

from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.host.managers.manager import HostSight
from emulator.host.swap_kernels import count_resident


def resident_bytes(ram: GuestRam) -> int:
    """Of a file its blocks; of accounted RAM the pages that hold anything and are not swapped out,
    counted."""
    if ram.kind == "memfd":
        return ram.file_resident_bytes()
    view = ram.view()
    return int(count_resident(view.words, view.swap_marks())) * PAGE_SIZE


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
