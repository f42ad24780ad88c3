"""The host's side of a machine's balloon, for either launcher."""

from functools import partial

import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import poll_statistics
from emulator.host.balloon_task import manage_balloon
from emulator.machine import Machine, Wires


async def manage_machine(machine: Machine, device: BalloonDevice, wires: Wires) -> None:
    """Ask the guest for its figures and set its target, for ever; at once if it has no balloon."""
    config = machine.balloon_config
    if config is None:
        return
    manage = partial(
        manage_balloon,
        device,
        machine.manager(),
        machine.host,
        memory_bytes=machine.scenario.guest.memory_bytes,
        every_s=config.every_s,
    )
    ask = partial(poll_statistics, device, call=wires["stats.call"], every_s=config.statistics_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manage)
        nursery.start_soon(ask)
