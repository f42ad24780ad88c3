"""A balloon behind a back-end, and a guest with real memory in front of it."""

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import serve_queue
from devices.balloon.features import queue_indices
from devices.balloon.layout import F_DEFLATE_ON_OOM, F_PAGE_REPORTING, REPORTING
from devices.memory.address_space import AddressSpace
from devices.memory.mapping import map_file
from devices.vhost_user.frontend import Frontend
from devices.vhost_user.messages import MemoryRange, VringAddresses
from devices.vhost_user.transport import Connection
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.errors import DriverError
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from devices.virtio.notifier import EventfdNotifier, Notifier
from devices.virtio.queue_layout import QueueLayout

FEATURES = (
    1 << F_DEFLATE_ON_OOM
    | 1 << F_PAGE_REPORTING
    | 1 << F_VERSION_1
    | 1 << F_INDIRECT_DESC
    | 1 << F_EVENT_IDX
)
REPORTING_INDEX = queue_indices(FEATURES)[REPORTING]
QUEUE_SIZE = 64
RAM_BYTES = 4 << 20
GUEST_ADDR = 0x10_0000  # Neither at 0, nor at the same place to guest and front-end, nor in file.
USER_ADDR = 0x7F00_0000_0000
FILE_OFFSET = 0x3000
QUEUE_BYTES = QueueLayout(size=QUEUE_SIZE, table_entries=4).size_bytes


class ServedBalloon:
    """The balloon device with its reporting queue, as a back-end's `Device`; it really discards."""

    def __init__(self, features: int = FEATURES, queues_max: int = 5) -> None:
        self.features = features
        self.queues_max = queues_max
        self.config = bytearray(16)
        self.balloon: BalloonDevice | None = None
        self.memory: AddressSpace | None = None
        self.accepted: int | None = None
        self.resets = 0
        self.discarded: list[tuple[int, int]] = []
        self.served: list[int] = []  # Numbers of the queues that are being served.
        self.hold: trio.Event | None = None  # A discard waits for it.
        self.error: Exception | None = None  # A discard fails with it.

    def read_config(self, offset: int, size: int) -> bytes | None:
        if offset + size > len(self.config):
            return None
        return bytes(self.config[offset : offset + size])

    def write_config(self, offset: int, data: bytes, *, migration: bool) -> bool:
        if not migration and (offset, len(data)) not in ((4, 4), (12, 4)):
            return False
        if offset + len(data) > len(self.config):
            return False
        self.config[offset : offset + len(data)] = data
        return True

    def begin(self, memory: AddressSpace, features: int) -> None:
        assert not self.served
        self.memory, self.accepted = memory, features
        self.balloon = BalloonDevice({}, memory, features=features)

    def replace_memory(self, memory: AddressSpace) -> None:
        assert self.accepted is not None and self.memory is not None
        for region in self.memory.regions:
            assert region.fd is not None
            os.fstat(region.fd)  # Still open.
        self.begin(memory, self.accepted)

    async def serve_queue(
        self, index: int, queue: DeviceQueue, *, kick: Notifier, call: Notifier
    ) -> None:
        assert self.accepted is not None and self.balloon is not None
        balloon = self.balloon
        self.served.append(index)
        try:
            if index != queue_indices(self.accepted).get(REPORTING):
                await trio.sleep_forever()  # A queue that no test lends anything to.
            balloon.queues[REPORTING] = queue
            async with trio.open_nursery() as nursery:  # As a device of several tasks does.
                nursery.start_soon(trio.sleep_forever)
                await serve_queue(balloon, REPORTING, kick=kick, call=call, discard=self._discard)
                raise DriverError(balloon.broken)
        finally:
            self.served.remove(index)

    def reset(self) -> None:
        assert not self.served
        self.resets += 1
        self.balloon = self.memory = self.accepted = None

    async def _discard(self, ranges: npt.NDArray[Any]) -> None:
        assert self.memory is not None
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        for index, offset, length in ranges.tolist():
            region = self.memory.regions[index]
            assert region.memory is not None
            self.discarded.append((region.guest_addr + offset, length))
            region.memory[offset : offset + length] = 0


class GuestMemory:
    """A file with RAM in it, the front-end's mapping of it, and a queue at its beginning."""

    def __init__(self, *, start: int = 0) -> None:
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, FILE_OFFSET + RAM_BYTES)
        self.ram = map_file(self.fd, RAM_BYTES, FILE_OFFSET)
        self.range = MemoryRange(
            guest_addr=GUEST_ADDR,
            size_bytes=RAM_BYTES,
            user_addr=USER_ADDR,
            mmap_offset=FILE_OFFSET,
        )
        self.layout = QueueLayout(size=QUEUE_SIZE, table_entries=4)
        self.views = self.layout.views(self.ram[: self.layout.size_bytes], GUEST_ADDR)
        self.queue = DriverQueue(self.views, features=FEATURES, start=start)

    def addresses(self, index: int = REPORTING_INDEX, *, at: int = USER_ADDR) -> VringAddresses:
        return VringAddresses(
            index=index,
            descriptors_addr=at,
            avail_addr=at + self.layout.avail_offset,
            used_addr=at + self.layout.used_offset,
        )

    def lend(self, *pages: int) -> bool:
        """Report these pages of RAM in one chain; whether the device must be kicked."""
        addrs = GUEST_ADDR + np.array(pages, dtype=np.uint64) * 4096
        assert self.queue.add(NO_SEGMENTS, segments(addrs, np.full(len(pages), 4096)), pages)
        return self.queue.publish()

    def close(self) -> None:
        os.close(self.fd)


class Guest:
    """A guest that speaks vhost-user over `stream`, with one queue for its reports."""

    def __init__(self, stream: socket.socket, memory: GuestMemory | None = None) -> None:
        self.memory = GuestMemory() if memory is None else memory
        self.connection = Connection(stream)
        self.frontend = Frontend()
        self.kick, self.call = EventfdNotifier(), EventfdNotifier()

    async def attach(self, *, base: int = 0) -> None:
        hold, frontend = self.connection.hold, self.frontend
        await hold(frontend.negotiate(features=FEATURES))
        await hold(frontend.set_memory([(self.memory.range, self.memory.fd)]))
        await self.start(base=base)

    async def start(self, *, base: int = 0) -> None:
        await self.connection.hold(
            self.frontend.set_up_vring(
                self.memory.addresses(),
                size=QUEUE_SIZE,
                base=base,
                kick=self.kick.fd,
                call=self.call.fd,
            )
        )

    async def report(self, *pages: int) -> None:
        """Report pages, and wait until that is acknowledged."""
        if self.memory.lend(*pages):
            self.kick.notify()
        with trio.fail_after(10):
            while not self.memory.queue.pop_used():
                if not self.memory.queue.enable_notifications():
                    await self.call.wait_notified()

    def leave(self) -> None:
        self.connection.close()

    def close(self) -> None:
        self.leave()
        self.memory.close()
        self.kick.close()
        self.call.close()


def open_descriptors() -> list[str]:
    """What the descriptors of this process are, but for the listing itself."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # Of the listing.
            continue
    return sorted(found)


def close_forgotten() -> None:
    """Let go of what earlier tests left to the garbage collector, which may come at any time.

    Takes a tenth of a second where many tests have run: once before many looks is enough.
    """
    gc.collect()


@contextmanager
def no_leak() -> Iterator[None]:
    """Assert that no descriptor is open behind it that was not open before it."""
    close_forgotten()
    before = open_descriptors()
    yield
    assert open_descriptors() == before
