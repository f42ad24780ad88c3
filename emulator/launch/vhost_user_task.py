"""A machine whose device is reached over vhost-user: how guest kernel and host are connected.

The guest's kernel hands over the RAM and the ring's segment, part by part, as descriptors; the host
knows no more of the guest than that, but for what a VMM knows besides: the RAM's size, and where a
migration stands.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy.typing as npt
import trio

from devices.virtio.notifier import EventfdNotifier
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.vhost_user_task import FilePart, Ring, attached_device
from emulator.host.migration_task import MigrationTask
from emulator.host.vhost_user_task import VhostUserBalloon, serve_emulated_guest
from emulator.launch.balloon import manage_machine
from emulator.launch.migration import migration_task
from emulator.machine import Machine, Wires
from emulator.memory_map import queue_guest_addr


@asynccontextmanager
async def attached_machine(
    stream: socket.socket, machine: Machine, wires: Wires, balloon: BalloonTask | None
) -> AsyncIterator[None]:
    """Have the device at the other end of `stream` serve the machine's queues, which are empty.

    Raises RunFailed if it refuses.
    """
    region = machine.regions["ring"]
    fd = region.open()
    try:
        memory = [FilePart(0, machine.ram.size_bytes, machine.ram.fd)]
        for name, addr in machine.ring_addrs().items():
            offset_bytes, size_bytes = region.part(name)
            memory.append(FilePart(addr, size_bytes, fd, offset_bytes))
        rings = {}
        for index, (name, layout) in enumerate(machine.queue_layouts.items()):
            kick, call = wires[f"{name}.kick"], wires[f"{name}.call"]
            assert isinstance(kick, EventfdNotifier) and isinstance(call, EventfdNotifier)
            rings[name] = Ring(layout, queue_guest_addr(index), kick, call)
        async with attached_device(
            stream,
            memory,
            rings,
            features=machine.features,
            config=region.arrays["config"],
            changed=lambda: machine.tell_config_changed(wires),
        ) as device:
            if balloon is not None:
                balloon.balloon.config_written = device.write_config
            yield
    finally:
        os.close(fd)


class MachineService:
    """The host's side: serves the guest at the other end of `stream`, and does what a VMM does."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._begun = trio.Event()
        self._balloon: VhostUserBalloon | None = None
        self._migration: MigrationTask | None = None

    async def serve(self, stream: socket.socket) -> None:
        """Until the guest leaves; RunFailed if it breaks the protocol."""
        config = self._machine.balloon_config
        await serve_emulated_guest(
            stream,
            self._machine.host,
            features=self._machine.features,
            statistics_s=None if config is None else config.statistics_s,
            hinted=self._skip,
            begun=self._begin,
        )

    async def manage(self) -> None:
        """Set the balloon's target and migrate the guest when it is asked for, for ever."""
        await self._begun.wait()
        assert self._balloon is not None
        machine, device = self._machine, self._balloon.balloon
        if device is None:  # The guest has left again.
            return
        self._migration = migration_task(machine, device, self._balloon.discard)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(manage_machine, machine, device, [machine]))
            if self._migration is not None:
                nursery.start_soon(self._migration.run)

    def _begin(self, balloon: VhostUserBalloon) -> None:
        self._balloon = balloon
        self._begun.set()

    async def _skip(self, ranges: npt.NDArray[Any]) -> None:
        if self._migration is not None:
            await self._migration.skip(ranges)
