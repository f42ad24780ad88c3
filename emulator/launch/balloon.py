"""The host's side of a machine's balloon, for either launcher."""

from collections.abc import Sequence

import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import poll_statistics
from emulator.host.balloon_task import manage_balloon
from emulator.host.residency import host_sight
from emulator.machine import Machine, Wires


async def ask_machine(machine: Machine, device: BalloonDevice, wires: Wires) -> None:
    """Ask the guest for its figures, for ever; ends at once if it has no balloon."""
    if machine.balloon_config is None:
        return
    every_s = machine.balloon_config.statistics_s
    await poll_statistics(device, call=wires["stats.call"], wait_due=lambda: trio.sleep(every_s))


async def manage_machine(
    machine: Machine, device: BalloonDevice, guests: Sequence[Machine]
) -> None:
    """Set the guest's target, for ever; ends at once if it has no balloon.

    guests: all of this host.
    """
    config, memory_bytes = machine.balloon_config, machine.scenario.host.memory_bytes
    if config is None:
        return
    host = None
    if memory_bytes is not None:
        each = [(guest.ram, guest.host) for guest in guests]
        host = host_sight(memory_bytes, each, guests.index(machine))
    await manage_balloon(
        device,
        machine.manager(),
        machine.host,
        memory_bytes=machine.scenario.guest.memory_bytes,
        every_s=config.every_s,
        host=host,
        cache_first=getattr(machine.mechanism, "reclaim_cache_first", None),
    )
