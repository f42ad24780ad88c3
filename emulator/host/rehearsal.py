"""Loads and compiles what serving a guest needs, before a guest waits for it.

A guest's kernel stands still while a request of its front-end is under way, and kernels take half
a second to be loaded.  So a small guest is served first: one report, one page into the balloon and
out of it.
"""

import os

import numpy as np

from devices.balloon.device import BalloonDevice
from devices.balloon.features import queue_indices
from devices.balloon.layout import (
    DEFLATE,
    F_PAGE_REPORTING,
    INFLATE,
    PFN,
    REPORTING,
)
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.memory.mapping import map_file
from devices.memory.ram import PAGE_SIZE
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC
from devices.virtio.queue_layout import QueueLayout
from emulator.host.discard import Discardable, Discarder
from emulator.host.layout import HOST

_FEATURES = 1 << F_PAGE_REPORTING | 1 << F_EVENT_IDX | 1 << F_INDIRECT_DESC
_QUEUE_BYTES = 1 << 16
_PAGES = 16


def rehearse() -> None:
    """Serve a guest of 16 pages for a moment.  OSError if the system refuses."""
    names = list(queue_indices(_FEATURES))
    ram_bytes = _PAGES * PAGE_SIZE
    size_bytes = ram_bytes + len(names) * _QUEUE_BYTES
    fd = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size_bytes)
        memory = map_file(fd, size_bytes)
        region = MemoryRegion(guest_addr=0, size_bytes=size_bytes, fd=fd, memory=memory)
        space = AddressSpace([region])
        drivers, queues = {}, {}
        for index, name in enumerate(names):
            at = ram_bytes + index * _QUEUE_BYTES
            views = QueueLayout(size=32, table_entries=2).views(memory[at : at + _QUEUE_BYTES], at)
            drivers[name] = DriverQueue(views, features=_FEATURES)
            drivers[name].initialize()
            queues[name] = DeviceQueue(views, space, features=_FEATURES)
        memory[:PAGE_SIZE] = 1
        memory[PAGE_SIZE : PAGE_SIZE + PFN.itemsize] = np.array([2], PFN).view(np.uint8)
        pfn = segments([PAGE_SIZE], [PFN.itemsize])
        drivers[INFLATE].add(pfn, NO_SEGMENTS, 0)
        drivers[DEFLATE].add(pfn, NO_SEGMENTS, 0)
        drivers[REPORTING].add(NO_SEGMENTS, segments([0, 8192], [4096, 4096]), 0)
        device = BalloonDevice(queues, space, features=_FEATURES)
        discarder = Discarder({0: Discardable.of_memory(region)}, np.zeros(1, HOST))
        for name in (INFLATE, DEFLATE, REPORTING):
            drivers[name].publish()
            queues[name].disable_notifications()
            request = device.take(name)
            assert request is not None
            discarder.discard(request.ranges)
            device.complete(request)
            queues[name].enable_notifications()
        discarder.settle()
    finally:
        os.close(fd)
