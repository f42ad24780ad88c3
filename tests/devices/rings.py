"""Both halves of a queue on one array, each as the other's check."""

from typing import Any

import numpy as np
import numpy.typing as npt

from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC
from devices.virtio.queue_layout import QueueLayout, QueueViews

INDIRECT = 1 << F_INDIRECT_DESC
EVENT_IDX = 1 << F_EVENT_IDX

QUEUE_ADDR = 0x1_0000_0000
RAM_ADDR = 0x4000_0000
RAM_BYTES = 0x1000_0000  # Two regions of this size, which touch.


def aligned_bytes(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeroed memory at a multiple of 16 bytes."""
    memory = np.zeros(size_bytes + 16, dtype=np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + size_bytes]


class Rings:
    """A queue in memory of its own, and RAM without bytes; nothing else is addressable."""

    def __init__(
        self, size: int = 8, *, features: int = 0, start: int = 0, table_entries: int = 8
    ) -> None:
        layout = QueueLayout(size=size, table_entries=table_entries)
        self.memory = aligned_bytes(layout.size_bytes)
        self.views: QueueViews = layout.views(self.memory, QUEUE_ADDR)
        self.address_space = AddressSpace(
            [
                MemoryRegion(
                    guest_addr=QUEUE_ADDR, size_bytes=layout.size_bytes, memory=self.memory
                ),
                MemoryRegion(guest_addr=RAM_ADDR, size_bytes=RAM_BYTES),
                MemoryRegion(guest_addr=RAM_ADDR + RAM_BYTES, size_bytes=RAM_BYTES),
            ]
        )
        self.driver = DriverQueue(self.views, features=features, start=start)
        self.device = DeviceQueue(self.views, self.address_space, features=features, start=start)

    def offer(self, *descriptors: tuple[int, int, int, int], head: int = 0) -> None:
        """As a hostile driver: write descriptors 0, 1, ... raw, and make `head` available."""
        for i, descriptor in enumerate(descriptors):
            self.views.descriptors[i] = descriptor
        avail_idx = int(self.views.avail[1]["word"])
        self.views.avail[2 + avail_idx % self.device.size]["word"] = head
        self.views.avail[1]["word"] = avail_idx + 1 & 0xFFFF

    def lend(self, count: int = 1, token: Any = "token") -> bool:
        """Add `count` writable buffers of 4 KiB as one chain, and publish it."""
        added = self.driver.add(NO_SEGMENTS, buffers(count), token)
        self.driver.publish()
        return added

    def give_back(self, length: int = 0) -> None:
        """Pop a chain, push it as used and publish it."""
        chain = self.device.pop()
        assert chain is not None
        self.device.push_used(chain.head, length)
        self.device.publish()


def buffers(count: int, *, addr: int = RAM_ADDR, length: int = 4096) -> npt.NDArray[Any]:
    """`SEGMENT[count]`, one after another in memory."""
    return segments(addr + np.arange(count) * length, np.full(count, length))
