"""A guest's memory, as its front-end hands it over: ranges of files, mapped and guarded.

Nothing that a front-end says of a range is believed: the descriptor must be of a regular file that
can be mapped for writing and is at least as long as the range needs *now*, nothing may overflow,
and two ranges must not overlap, neither to the guest nor to the front-end.  A file that shrinks
later costs its own contents: the mapping turns to zeroes, and `lost` says so (`bus_error.py`).

Invariant:
    address_space.regions == the regions of the mapped ranges, each with a descriptor of its own
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.memory.bus_error import Guard
from devices.memory.mapping import map_foreign_file
from devices.vhost_user.errors import Refused
from devices.vhost_user.messages import MemoryRange

_ADDRESSES_MAX: Final = 1 << 64


def check_file_range(fd: int, offset: int, size_bytes: int, what: str) -> None:
    """Raises Refused unless `fd` is a regular file with these bytes in it."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{what} is no regular file")
    if size_bytes < 1 or offset + size_bytes > found.st_size:
        raise Refused(
            f"{what} has {found.st_size:#x} bytes, but {size_bytes:#x} at {offset:#x} are asked for"
        )


@dataclass(frozen=True, slots=True, eq=False)
class MappedRange:
    """One range, mapped; `close` closes its descriptor, and the mapping goes with its last view."""

    range: MemoryRange
    region: MemoryRegion
    guard: Guard

    @classmethod
    def map(cls, described: MemoryRange, fd: int) -> "MappedRange":
        """Map it; `fd` becomes ours, also if it is refused.

        Raises Refused.
        """
        try:
            what = f"the file of the memory region at {described.guest_addr:#x}"
            check_file_range(fd, described.mmap_offset, described.size_bytes, what)
            if described.user_addr + described.size_bytes > _ADDRESSES_MAX:
                raise Refused(
                    f"the memory region at {described.guest_addr:#x} leaves the front-end's "
                    f"address space"
                )
            memory, guard = map_foreign_file(fd, described.size_bytes, described.mmap_offset)
            region = MemoryRegion(
                guest_addr=described.guest_addr,
                size_bytes=described.size_bytes,
                fd=fd,
                fd_offset_bytes=described.mmap_offset,
                memory=memory,
            )
        except (OSError, ValueError) as error:
            os.close(fd)
            raise Refused(f"the memory region at {described.guest_addr:#x}: {error}") from None
        except BaseException:
            os.close(fd)
            raise
        return cls(described, region, guard)

    def close(self) -> None:
        """Close the descriptor."""
        if self.region.fd is not None:
            os.close(self.region.fd)


class GuestMemory:
    """All ranges of one guest; a change makes another `GuestMemory`, which shares what stays.

    address_space:  what queues and device translate by

    Raises Refused if two ranges overlap.
    """

    def __init__(self, mapped: Iterable[MappedRange] = ()) -> None:
        self.mapped: Final = tuple(mapped)
        by_user_addr = sorted((m.range for m in self.mapped), key=lambda r: r.user_addr)
        for low, high in pairwise(by_user_addr):
            if high.user_addr < low.user_addr + low.size_bytes:
                raise Refused(
                    f"the memory regions at {low.guest_addr:#x} and {high.guest_addr:#x} overlap "
                    f"in the front-end"
                )
        try:
            self.address_space: Final = AddressSpace(m.region for m in self.mapped)
        except ValueError as error:
            raise Refused(str(error)) from None

    @property
    def lost(self) -> bool:
        """Whether a file has shrunk under its mapping."""
        return any(mapped.guard.lost for mapped in self.mapped)

    def guest_addr(self, user_addr: int) -> int | None:
        """What the front-end calls `user_addr`, to the guest; None if it lies in no range."""
        for mapped in self.mapped:
            offset = user_addr - mapped.range.user_addr
            if 0 <= offset < mapped.range.size_bytes:
                return mapped.range.guest_addr + offset
        return None

    def close(self, *, keep: "GuestMemory | None" = None) -> None:
        """Close the ranges that are not also in `keep`; nobody may hold a view of one."""
        kept = () if keep is None else keep.mapped
        for mapped in self.mapped:
            if mapped not in kept:
                mapped.close()
