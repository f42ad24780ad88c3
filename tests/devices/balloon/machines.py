"""A driver and a device with all queues over one array, and what a hostile driver may write."""

from typing import Any

import numpy as np
import numpy.typing as npt

from devices.balloon.config_space import ConfigSpace
from devices.balloon.device import BalloonDevice
from devices.balloon.features import feature_bits, queue_indices
from devices.balloon.layout import BALLOON_PAGE_SIZE, PFN, PFNS_MAX, STATS_BYTES_MAX, STATS_ENTRY
from devices.balloon.page_number_driver import PageNumberDriver
from devices.balloon.stats_driver import StatsDriver
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.queue_layout import QueueLayout
from tests.devices.rings import aligned_bytes

ALL = ("must_tell_host", "stats_vq", "deflate_on_oom", "free_page_hint", "page_poison")
ALL_FEATURES = feature_bits((*ALL, "page_reporting"))

QUEUES_ADDR = 1 << 40
DATA_ADDR = 1 << 41  # Bytes that buffers to read lie in.
DATA_BYTES = 1 << 16
LOW_PAGES, HIGH_PAGES = 64, 32
HIGH_ADDR = 1 << 30
HIGH_PFN = HIGH_ADDR // BALLOON_PAGE_SIZE
LOW, HIGH = 0, 1  # Regions of RAM, in order of address.
QUEUE_SIZE = 16


class BalloonMachine:
    """RAM of `low_pages` at 0 and of HIGH_PAGES at HIGH_ADDR; a ring for each queue."""

    def __init__(
        self, features: int = ALL_FEATURES, *, low_pages: int = LOW_PAGES, **options: Any
    ) -> None:
        layout = QueueLayout(size=QUEUE_SIZE, table_entries=QUEUE_SIZE)
        names = queue_indices(features)
        rings = aligned_bytes(layout.size_bytes * len(names))
        self.data = aligned_bytes(DATA_BYTES)
        page = BALLOON_PAGE_SIZE
        self.space = AddressSpace(
            [
                MemoryRegion(guest_addr=0, size_bytes=low_pages * page),
                MemoryRegion(guest_addr=HIGH_ADDR, size_bytes=HIGH_PAGES * page),
                MemoryRegion(guest_addr=QUEUES_ADDR, size_bytes=len(rings), memory=rings),
                MemoryRegion(guest_addr=DATA_ADDR, size_bytes=DATA_BYTES, memory=self.data),
            ]
        )
        self.drivers: dict[str, DriverQueue] = {}
        queues = {}
        for name, index in names.items():
            start = index * layout.size_bytes
            part = rings[start : start + layout.size_bytes]
            views = layout.views(part, QUEUES_ADDR + start)
            self.drivers[name] = DriverQueue(views, features=features)
            queues[name] = DeviceQueue(views, self.space, features=features)
        self.changes = 0
        self.config = ConfigSpace(changed=self._changed)
        self.device = BalloonDevice(
            queues, self.space, features=features, config=self.config, **options
        )

    def _changed(self) -> None:
        self.changes += 1

    def page_numbers(self, name: str) -> PageNumberDriver:
        """The driver's half of `inflate` or `deflate`, each with an array of its own."""
        start = 0 if name == "inflate" else PFNS_MAX * PFN.itemsize
        view = self.data[start : start + PFNS_MAX * PFN.itemsize].view(PFN)
        return PageNumberDriver(self.drivers[name], view, DATA_ADDR + start)

    def stats(self) -> StatsDriver:
        """The driver's half of `stats`."""
        start = 2 * PFNS_MAX * PFN.itemsize
        view = self.data[start : start + 16 * STATS_ENTRY.itemsize].view(STATS_ENTRY)
        return StatsDriver(self.drivers["stats"], view, DATA_ADDR + start)

    def send(self, name: str, data: bytes, *, offset: int = 2 * STATS_BYTES_MAX) -> None:
        """As any driver: one readable buffer with these bytes."""
        self.data[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        self.lend(name, segments([DATA_ADDR + offset], [len(data)]), NO_SEGMENTS)

    def lend(self, name: str, readable: npt.NDArray[Any], writable: npt.NDArray[Any]) -> None:
        """As any driver: a chain of these buffers."""
        assert self.drivers[name].add(readable, writable, name)
        self.drivers[name].publish()

    def serve(self, name: str) -> list[tuple[int, int, int]]:
        """All that is there: the ranges to discard, as (region, page, pages)."""
        found = []
        while (request := self.device.take(name)) is not None:
            found += [
                (region, offset // BALLOON_PAGE_SIZE, length // BALLOON_PAGE_SIZE)
                for region, offset, length in request.ranges.tolist()
            ]
            self.device.complete(request)
        return found


def numbers(*pfns: int) -> bytes:
    """Page numbers as they lie in a buffer."""
    return np.array(pfns, PFN).tobytes()
