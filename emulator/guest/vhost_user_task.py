"""The guest's side of a vhost-user balloon: how it hands its memory over, and what it is told.

A guest's kernel and its VMM in one, as User-Mode Linux is: all that the device must see, the RAM,
the rings and what is sent by them, goes to the back-end as descriptors.  Guest addresses are user
addresses, too.  The configuration travels by messages: the driver works on a copy, which is read
anew whenever the back-end says that it has changed.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.driver import BalloonDriver
from devices.balloon.driver_task import FreePageReporter
from devices.balloon.features import FEATURES, queue_indices
from devices.balloon.layout import BALLOON_CONFIG, DRIVER_FIELDS, REPORTING
from devices.memory.mapping import map_file
from devices.memory.ram import GuestRam
from devices.vhost_user.errors import ProtocolError, Refused
from devices.vhost_user.frontend import Dialogue, Frontend
from devices.vhost_user.messages import MemoryRange, VringAddresses
from devices.vhost_user.transport import Connection, watch_backend
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.notifier import EventfdNotifier
from devices.virtio.queue_layout import QueueLayout
from emulator.errors import RunFailed

T = TypeVar("T")

_ANSWER_S_MAX: Final = 120.0  # The host may have kernels to compile first.
_DEVICE_FIELDS: Final = tuple(n for n in BALLOON_CONFIG.names or () if n not in DRIVER_FIELDS)


class FilePart(NamedTuple):
    """A part of a file that is guest memory at `guest_addr`."""

    guest_addr: int
    size_bytes: int
    fd: int
    offset_bytes: int = 0


class Ring(NamedTuple):
    """One queue, in memory that is handed over; empty."""

    layout: QueueLayout
    guest_addr: int
    kick: EventfdNotifier
    call: EventfdNotifier


class VhostUserDevice:
    """A balloon device behind a connected socket, as a driver sees it.

    config:   BALLOON_CONFIG[1], the driver's copy
    changed:  called when the device has changed the copy
    """

    def __init__(
        self, stream: socket.socket, config: npt.NDArray[Any], changed: Callable[[], None]
    ) -> None:
        self._connection = Connection(stream, message_s=_ANSWER_S_MAX)
        self._frontend = Frontend()
        self._config = config
        self._changed = changed
        self._actual = 0  # As the device knows it.
        self._stirred = trio.Event()
        self._stale = False

    def write_config(self) -> None:
        """The driver has written `actual` into the copy."""
        self._stirred.set()

    async def attach(
        self,
        memory: Sequence[FilePart],
        rings: Mapping[str, Ring],
        *,
        features: int,
        channel: socket.socket,
    ) -> None:
        """Agree on `features`, hand everything over and have the queues served.

        channel:  where the back-end is to say that the configuration has changed

        Raises RunFailed if it refuses, or lacks a feature.
        """
        frontend = self._frontend
        accepted = await self._hold(frontend.negotiate(features=features))
        if lacking := features & ~accepted:
            names = [name for name, bit in FEATURES.items() if lacking >> bit & 1]
            what = ", ".join(names) or hex(lacking)
            raise RunFailed(f"the device behind the socket lacks {what}")
        await self._hold(frontend.connect_channel(channel.fileno()))
        table = [(_range(part), part.fd) for part in memory]
        await self._hold(frontend.set_memory(table))
        indices = queue_indices(features)
        for name, ring in rings.items():
            addresses = VringAddresses(
                index=indices[name],
                descriptors_addr=ring.guest_addr,
                avail_addr=ring.guest_addr + ring.layout.avail_offset,
                used_addr=ring.guest_addr + ring.layout.used_offset,
            )
            size, kick, call = ring.layout.size, ring.kick.fd, ring.call.fd
            await self._hold(frontend.set_up_vring(addresses, size=size, kick=kick, call=call))
        await self._read_config()

    async def keep_config(self) -> None:
        """Have both sides know what the other has written into the configuration, for ever."""
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            with trio.CancelScope(shield=True):  # Nobody leaves in the middle of a sentence.
                await self._write_actual()
                if self._stale:
                    self._stale = False
                    await self._read_config()
                    self._changed()

    async def watch(self, channel: socket.socket) -> None:
        """Listen to the back-end until it has left."""
        try:
            await watch_backend(channel, config_changed=self._config_changed)
        except ProtocolError as error:
            raise _failed(error) from error

    def close(self) -> None:
        """Leave: the back-end lets go of the memory."""
        self._connection.close()

    def _config_changed(self) -> None:
        self._stale = True
        self._stirred.set()

    async def _write_actual(self) -> None:
        actual = int(self._config[0]["actual"])
        if actual != self._actual:
            dtype, offset = BALLOON_CONFIG.fields["actual"][:2]  # type: ignore[index]
            data = np.array([actual], dtype).tobytes()
            await self._hold(self._frontend.write_config(offset, data))
            self._actual = actual

    async def _read_config(self) -> None:
        data = await self._hold(self._frontend.read_config(0, BALLOON_CONFIG.itemsize))
        found = np.frombuffer(data, BALLOON_CONFIG)[0]
        for name in _DEVICE_FIELDS:
            self._config[0][name] = found[name]

    async def _hold(self, dialogue: Dialogue[T]) -> T:
        try:
            return await self._connection.hold(dialogue)
        except (Refused, ProtocolError) as error:
            raise _failed(error) from error


@asynccontextmanager
async def attached_device(
    stream: socket.socket,
    memory: Sequence[FilePart],
    rings: Mapping[str, Ring],
    *,
    features: int,
    config: npt.NDArray[Any] | None = None,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[VhostUserDevice]:
    """The device at the other end of `stream`, which becomes ours; `VhostUserDevice` says the rest.

    On the way out the connection is closed.  Raises RunFailed if the back-end refuses.
    """
    words = np.zeros(1, BALLOON_CONFIG) if config is None else config
    device = VhostUserDevice(stream, words, changed)
    ours, theirs = socket.socketpair()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.watch, ours)
            with theirs:
                await device.attach(memory, rings, features=features, channel=theirs)
            nursery.start_soon(device.keep_config)
            yield device
            nursery.cancel_scope.cancel()
    finally:
        device.close()


@asynccontextmanager
async def vhost_user_reporter(
    stream: socket.socket, ram: GuestRam, layout: QueueLayout, ring_addr: int, *, features: int
) -> AsyncIterator[FreePageReporter]:
    """A reporter through the back-end at the other end of `stream`, which becomes ours: for a guest
    that does nothing else.

    ring_addr:  where the ring is to lie in the guest's address space, outside of the RAM
    features:   those of the ring, and PAGE_REPORTING

    Raises RunFailed if the back-end refuses.
    """
    kick, call = EventfdNotifier(), EventfdNotifier()
    ring_fd = os.memfd_create("guest-ring", os.MFD_CLOEXEC)
    try:
        os.ftruncate(ring_fd, layout.size_bytes)
        memory = [
            FilePart(0, ram.size_bytes, ram.fd),
            FilePart(ring_addr, layout.size_bytes, ring_fd),
        ]
        views = layout.views(map_file(ring_fd, layout.size_bytes), ring_addr)
        queue = DriverQueue(views, features=features)
        ring = Ring(layout, ring_addr, kick, call)
        async with attached_device(stream, memory, {REPORTING: ring}, features=features):
            yield FreePageReporter(BalloonDriver({REPORTING: queue}), kick=kick, call=call)
    finally:
        kick.close()
        call.close()
        os.close(ring_fd)


def _range(part: FilePart) -> MemoryRange:
    return MemoryRange(
        guest_addr=part.guest_addr,
        size_bytes=part.size_bytes,
        user_addr=part.guest_addr,
        mmap_offset=part.offset_bytes,
    )


def _failed(error: Exception) -> RunFailed:
    return RunFailed(f"the host's vhost-user back-end: {error}")
