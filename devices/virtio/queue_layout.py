"""Where the parts of a split virtqueue lie, for either half (VIRTIO 1.3, section 2.7).

A driver of ours lays all parts into one array (`QueueLayout`), with room for indirect tables
behind them: a table for each descriptor, used when that descriptor heads a chain, so that tables
need no allocator.  A device finds the parts at whatever guest-physical addresses the driver named
(`find_queue`).  Both see the same `QueueViews`.

    0                    descriptors       16 N
    avail_offset         available ring    6 + 2 N
    used_offset          used ring         6 + 8 N
    tables_offset        indirect tables   16 N table_entries
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.address_space import AddressSpace
from devices.virtio.errors import DriverError
from devices.virtio.layout import (
    AVAIL_ALIGN,
    DESC_ALIGN,
    IDX_WORD,
    QUEUE_SIZE_MAX,
    RING_WORD,
    TABLE_ENTRIES_MAX,
    USED_ALIGN,
    VIRTQ_DESC,
    VIRTQ_USED_ELEM,
    avail_words,
    used_words,
)


class QueueViews(NamedTuple):
    """The parts of one queue of size N, as kernels take them; views, not copies.

    descriptors:  VIRTQ_DESC[N]
    avail:        RING_WORD[N + 3]
    used:         RING_WORD[4 N + 3]
    used_ring:    VIRTQ_USED_ELEM[N], the same bytes as words 2 .. 4 N + 1 of `used`
    tables:       VIRTQ_DESC[N * table_entries], the driver's; empty for a device
    tables_addr:  guest-physical address of `tables`
    """

    descriptors: npt.NDArray[Any]
    avail: npt.NDArray[Any]
    used: npt.NDArray[Any]
    used_ring: npt.NDArray[Any]
    tables: npt.NDArray[Any]
    tables_addr: int


def check_queue_size(size: int) -> None:
    """Raises ValueError unless a queue may have `size` entries."""
    if not 1 <= size <= QUEUE_SIZE_MAX or size & (size - 1):
        raise ValueError(
            f"a queue of {size} entries; a power of two from 1 to {QUEUE_SIZE_MAX} would work"
        )


def initialize(views: QueueViews, start: int = 0) -> None:
    """Empty both rings; their free-running indices begin at `start`, 0 .. 65535.

    For the driver, before the device uses the queue.  Zeroed memory is a queue that starts at 0.
    """
    for part in (views.descriptors, views.avail, views.used):
        part.view(np.uint8)[:] = 0
    views.avail[IDX_WORD]["word"] = start
    views.used[IDX_WORD]["word"] = start
    views.avail[-1]["word"] = start  # used_event and avail_event: the first of all is wanted.
    views.used[-1]["word"] = start


def _views_of(
    descriptors: npt.NDArray[np.uint8],
    avail: npt.NDArray[np.uint8],
    used: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.uint8],
    tables_addr: int,
) -> QueueViews:
    """Typed views of bytes that are long enough and aligned."""
    return QueueViews(
        descriptors=descriptors.view(VIRTQ_DESC),
        avail=avail.view(RING_WORD),
        used=used.view(RING_WORD),
        used_ring=used[4:-2].view(VIRTQ_USED_ELEM),
        tables=tables.view(VIRTQ_DESC),
        tables_addr=tables_addr,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLayout:
    """The places of all parts of a queue in one array of bytes.

    size:           entries, a power of two up to 32768
    table_entries:  segments that fit into an indirect table; 0: no tables.  A longer chain takes
                    direct descriptors.

    Raises ValueError for a size that no queue may have.
    """

    size: int
    table_entries: int = 0

    def __post_init__(self) -> None:
        check_queue_size(self.size)
        if not 0 <= self.table_entries <= TABLE_ENTRIES_MAX:
            raise ValueError(
                f"indirect tables of {self.table_entries} entries; 0 to {TABLE_ENTRIES_MAX} "
                f"would work"
            )

    @property
    def avail_offset(self) -> int:
        return VIRTQ_DESC.itemsize * self.size

    @property
    def used_offset(self) -> int:
        return _align(self.avail_offset + 2 * avail_words(self.size), USED_ALIGN)

    @property
    def tables_offset(self) -> int:
        return _align(self.used_offset + 2 * used_words(self.size), DESC_ALIGN)

    @property
    def size_bytes(self) -> int:
        """Of all parts; a multiple of 16."""
        return self.tables_offset + VIRTQ_DESC.itemsize * self.size * self.table_entries

    def views(self, memory: npt.NDArray[np.uint8], guest_addr: int) -> QueueViews:
        """The parts in `memory`, `uint8[size_bytes or more]`, whose first byte is at `guest_addr`.

        Raises ValueError if the memory is too small or not aligned to 16 bytes, here or there.
        """
        if memory.dtype != np.uint8 or memory.ndim != 1 or len(memory) < self.size_bytes:
            raise ValueError(
                f"a queue of {self.size} entries needs uint8[{self.size_bytes}], not "
                f"{memory.dtype}{list(memory.shape)}"
            )
        if memory.ctypes.data % DESC_ALIGN or guest_addr % DESC_ALIGN:
            raise ValueError(f"the queue at {guest_addr:#x} is not aligned to {DESC_ALIGN} bytes")
        used_end = self.used_offset + 2 * used_words(self.size)
        return _views_of(
            memory[: self.avail_offset],
            memory[self.avail_offset :][: 2 * avail_words(self.size)],
            memory[self.used_offset : used_end],
            memory[self.tables_offset : self.size_bytes],
            guest_addr + self.tables_offset,
        )


def find_queue(
    address_space: AddressSpace,
    *,
    size: int,
    descriptors_addr: int,
    avail_addr: int,
    used_addr: int,
) -> QueueViews:
    """The parts of a queue that a driver says it has put at these guest-physical addresses.

    Raises DriverError for a size that no queue may have, a part that is not aligned (2.7.1) or
    does not lie inside one region that has bytes.
    """
    try:
        check_queue_size(size)
    except ValueError as error:
        raise DriverError(str(error)) from None

    def part(name: str, addr: int, size_bytes: int, align: int) -> npt.NDArray[np.uint8]:
        found = address_space.view(addr, size_bytes)
        if found is None:
            raise DriverError(f"the {name} at {addr:#x} are not inside one memory region")
        if addr % align or found.ctypes.data % align:
            raise DriverError(f"the {name} at {addr:#x} are not aligned to {align} bytes")
        return found

    return _views_of(
        part("descriptors", descriptors_addr, VIRTQ_DESC.itemsize * size, DESC_ALIGN),
        part("available entries", avail_addr, 2 * avail_words(size), AVAIL_ALIGN),
        part("used entries", used_addr, 2 * used_words(size), USED_ALIGN),
        np.empty(0, dtype=np.uint8),
        0,
    )


def _align(offset: int, align: int) -> int:
    return -(-offset // align) * align
