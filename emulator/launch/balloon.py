"""The host's side of a machine's balloon, for either launcher."""

from collections.abc import Sequence
from functools import partial

import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import poll_statistics
from devices.memory.ram import GuestRam
from emulator.host.balloon_task import manage_balloon
from emulator.host.residency import host_sight
from emulator.machine import Machine, Wires


async def manage_machine(
    machine: Machine, device: BalloonDevice, wires: Wires, guests: Sequence[GuestRam]
) -> None:
    """Ask the guest for its figures and set its target, for ever; at once if it has no balloon.

    guests: the RAM of all guests of this host.
    """
    config, memory_bytes = machine.balloon_config, machine.scenario.host.memory_bytes
    if config is None:
        return
    host = None
    if memory_bytes is not None:
        host = host_sight(memory_bytes, guests, guests.index(machine.ram))
    manage = partial(
        manage_balloon,
        device,
        machine.manager(),
        machine.host,
        memory_bytes=machine.scenario.guest.memory_bytes,
        every_s=config.every_s,
        host=host,
    )
    every_s = config.statistics_s
    ask = partial(poll_statistics, device, call=wires["stats.call"], pause_s=lambda: every_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manage)
        nursery.start_soon(ask)
