"""Guest-physical memory as a device sees it: a few regions, and nothing between them.

Whatever a guest names, it names by guest-physical address: parts of a ring, indirect tables,
ranges to discard.  Every such name goes through an `AddressSpace`, which answers only for what
lies inside *one* region; two regions that touch are still two, for they may lie in different files
(as in QEMU's `memory_region_find`).  Addresses and lengths come from the guest: any 64-bit value
is answered, none overflows.

Invariants:
    regions[i].end_addr <= regions[i + 1].guest_addr
    view(addr, length) is not None  =>  len(view(addr, length)) == length
"""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NO_REGION: Final = -1

_ADDRESSES_MAX: Final = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryRegion:
    """Contiguous guest memory.

    guest_addr:       guest-physical address of the first byte
    size_bytes:       at least 1
    fd:               the file behind it, to discard from; None if there is none
    fd_offset_bytes:  where in that file the region begins
    memory:           its bytes, `uint8[size_bytes]`; None if nothing is behind it (accounted RAM)

    Raises ValueError for a region that is empty, leaves the 64-bit address space, or whose bytes
    are not as many as it says.
    """

    guest_addr: int
    size_bytes: int
    fd: int | None = None
    fd_offset_bytes: int = 0
    memory: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise ValueError(f"a memory region of {self.size_bytes} bytes; at least 1 is needed")
        if not 0 <= self.guest_addr <= _ADDRESSES_MAX - self.size_bytes:
            raise ValueError(
                f"a memory region of {self.size_bytes:#x} bytes at {self.guest_addr:#x} is not "
                f"inside the 64-bit address space"
            )
        if self.fd_offset_bytes < 0:
            raise ValueError(f"a region's offset in its file is {self.fd_offset_bytes}, below 0")
        memory = self.memory
        if memory is not None and (memory.dtype != np.uint8 or memory.shape != (self.size_bytes,)):
            raise ValueError(
                f"the bytes of the region at {self.guest_addr:#x} are {memory.dtype}"
                f"{list(memory.shape)}, not uint8[{self.size_bytes}]"
            )

    @property
    def end_addr(self) -> int:
        """The first address behind the region; at most 2**64."""
        return self.guest_addr + self.size_bytes


class AddressSpace:
    """The memory regions of one guest, by guest-physical address.

    `regions` is sorted by address; the numbers that `indices_of` returns are indices into it, and
    into `starts`, `uint64[len(regions)]`: the address of each region's first byte.
    Raises ValueError if two regions overlap.
    """

    def __init__(self, regions: Iterable[MemoryRegion]) -> None:
        self.regions: Final = tuple(sorted(regions, key=lambda region: region.guest_addr))
        for low, high in zip(self.regions, self.regions[1:], strict=False):
            if high.guest_addr < low.end_addr:
                raise ValueError(
                    f"the memory region at {high.guest_addr:#x} overlaps the one at "
                    f"{low.guest_addr:#x}, which ends at {low.end_addr:#x}"
                )
        self._guest_addrs = [region.guest_addr for region in self.regions]
        self.starts: Final = np.array(self._guest_addrs, dtype=np.uint64)
        self._sizes = np.array([r.size_bytes for r in self.regions], dtype=np.uint64)

    def region_of(self, addr: int, length: int) -> MemoryRegion | None:
        """The one region that holds all of `length` bytes at `addr`; None for no bytes at all."""
        index = bisect.bisect_right(self._guest_addrs, addr) - 1
        if index < 0 or length < 1 or addr + length > self.regions[index].end_addr:
            return None
        return self.regions[index]

    def view(self, addr: int, length: int) -> npt.NDArray[np.uint8] | None:
        """The bytes there, not a copy: `uint8[length]`.

        None unless they lie inside one region that has bytes.
        """
        region = self.region_of(addr, length)
        if region is None or region.memory is None:
            return None
        start = addr - region.guest_addr
        return region.memory[start : start + length]

    def indices_of(
        self, addr: npt.NDArray[np.uint64], length: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """For each range the index of the region that holds all of it, or NO_REGION.

        `addr` and `length` (bytes, unsigned) are arrays of equal shape; so is the result.
        An empty range lies in no region.
        """
        if not self.regions:
            return np.full(addr.shape, NO_REGION, dtype=np.int64)
        index = np.searchsorted(self.starts, addr, side="right") - 1
        offset = addr - self.starts[index]  # Wraps below the first region: masked out below.
        size = self._sizes[index]
        inside = (index >= 0) & (length > 0) & (offset < size) & (length <= size - offset)
        return np.where(inside, index, NO_REGION)
