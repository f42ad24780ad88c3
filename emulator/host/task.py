"""The host: takes reports from a guest's ring and gives the memory back to the system."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy.typing as npt

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import serve_queue
from devices.balloon.layout import FREE_PAGE, REPORTING
from devices.virtio.notifier import Notifier
from emulator.errors import RunFailed
from emulator.host.discard import Discarder
from emulator.host.migration_task import MigrationTask

# How long a discard of so many bytes takes in virtual time.
VirtualCost = Callable[[int], Awaitable[None]]


async def serve_guest(
    device: BalloonDevice,
    discarder: Discarder,
    account: npt.NDArray[Any],
    *,
    kick: Notifier,
    call: Notifier,
    virtual_cost: VirtualCost | None = None,
    migration: MigrationTask | None = None,
) -> None:
    """Serve a guest's one queue, reporting or free page hints, until cancelled.

    account: HOST[1].  In real time a discard takes what it takes; in virtual time `virtual_cost`
    waits for it, before the report is acknowledged.  Hints are for `migration`.
    Raises RunFailed if the guest breaks the protocol: its device is stopped, nothing more of its
    memory is touched, and what it has reported stays unacknowledged.
    """

    async def discard(ranges: npt.NDArray[Any]) -> None:
        returned = discarder.discard(ranges)
        if virtual_cost is not None:
            await virtual_cost(returned)

    try:
        if FREE_PAGE in device.queues:
            handle = _forget if migration is None else migration.skip
            await serve_queue(device, FREE_PAGE, kick=kick, call=call, discard=handle)
        else:
            await serve_queue(device, REPORTING, kick=kick, call=call, discard=discard)
    finally:
        if REPORTING in device.queues:
            seen = device.statistics(REPORTING)
            account[0]["bad_elements"] = seen.elements - seen.accepted
        account[0]["broken"] = device.broken is not None
    raise RunFailed(f"the guest broke its balloon device: {device.broken}")


async def _forget(ranges: npt.NDArray[Any]) -> None:
    """A hint that nobody asked for."""
