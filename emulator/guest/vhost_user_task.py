"""The guest's side of a vhost-user balloon: how it hands its memory over, and reports.

A guest's kernel and its VMM in one, as User-Mode Linux is: the ring lies in memory of its own, and
both that and its RAM go to the back-end as descriptors.  Guest addresses are user addresses, too.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from devices.balloon.driver import BalloonDriver
from devices.balloon.driver_task import FreePageReporter
from devices.balloon.features import queue_indices
from devices.balloon.layout import F_PAGE_REPORTING, REPORTING
from devices.memory.mapping import map_file
from devices.memory.ram import GuestRam
from devices.vhost_user.errors import ProtocolError, Refused
from devices.vhost_user.frontend import Frontend
from devices.vhost_user.messages import MemoryRange, VringAddresses
from devices.vhost_user.transport import Connection
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.notifier import EventfdNotifier
from devices.virtio.queue_layout import QueueLayout
from emulator.errors import RunFailed

_ANSWER_S_MAX: Final = 120.0  # The host may have kernels to compile first.


@asynccontextmanager
async def vhost_user_reporter(
    stream: socket.socket, ram: GuestRam, layout: QueueLayout, ring_addr: int, *, features: int
) -> AsyncIterator[FreePageReporter]:
    """A reporter through the back-end at the other end of `stream`, which becomes ours.

    ring_addr:  where the ring is to lie in the guest's address space, outside of the RAM
    features:   what the driver wants; PAGE_REPORTING must be among what the device offers

    On the way out the connection is closed, and the back-end lets go of the memory.  Raises
    RunFailed if the back-end refuses.
    """
    connection, frontend = Connection(stream, message_s=_ANSWER_S_MAX), Frontend()
    kick, call = EventfdNotifier(), EventfdNotifier()
    ring_fd = os.memfd_create("guest-ring", os.MFD_CLOEXEC)
    try:
        os.ftruncate(ring_fd, layout.size_bytes)
        accepted = await connection.hold(frontend.negotiate(features=features))
        if not accepted >> F_PAGE_REPORTING & 1:
            raise RunFailed("the device behind the socket offers no free page reporting")
        memory = [
            (_range(0, ram.size_bytes), ram.fd),
            (_range(ring_addr, layout.size_bytes), ring_fd),
        ]
        await connection.hold(frontend.set_memory(memory))
        views = layout.views(map_file(ring_fd, layout.size_bytes), ring_addr)
        queue = DriverQueue(views, features=accepted)
        queue.initialize()
        addresses = VringAddresses(
            index=queue_indices(accepted)[REPORTING],
            descriptors_addr=ring_addr,
            avail_addr=ring_addr + layout.avail_offset,
            used_addr=ring_addr + layout.used_offset,
        )
        await connection.hold(
            frontend.set_up_vring(addresses, size=queue.size, kick=kick.fd, call=call.fd)
        )
        yield FreePageReporter(BalloonDriver({REPORTING: queue}), kick=kick, call=call)
    except (Refused, ProtocolError) as error:
        raise RunFailed(f"the host's vhost-user back-end: {error}") from error
    finally:
        connection.close()
        kick.close()
        call.close()
        os.close(ring_fd)


def _range(addr: int, size_bytes: int) -> MemoryRange:
    return MemoryRange(guest_addr=addr, size_bytes=size_bytes, user_addr=addr, mmap_offset=0)
