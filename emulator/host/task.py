"""The host: takes what a guest gives away from its rings and returns it to the system."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import numpy.typing as npt
import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import serve_queue
from devices.balloon.features import queue_indices
from devices.balloon.layout import FREE_PAGE, INFLATE, REPORTING, STATS
from devices.virtio.notifier import Notifier
from emulator.errors import RunFailed
from emulator.host.discard import Discarder
from emulator.host.migration_task import MigrationTask

# Takes as long as a report of so many blocks does, in virtual time.
VirtualCost = Callable[[int], Awaitable[None]]


async def serve_guest(
    device: BalloonDevice,
    discarder: Discarder,
    account: npt.NDArray[Any],
    *,
    wires: Mapping[str, Notifier],
    virtual_cost: VirtualCost | None = None,
    migration: MigrationTask | None = None,
) -> None:
    """Serve all queues of a guest until cancelled.

    account: HOST[1];  wires: for each queue its `NAME.kick` and `NAME.call`.  In real time a report
    takes what it takes; in virtual time `virtual_cost` waits for it, before it is acknowledged.
    Hints are for `migration`.
    Raises RunFailed if the guest breaks the protocol: its device is stopped, nothing more of its
    memory is touched, and what it has reported stays unacknowledged.
    """

    async def discard(ranges: npt.NDArray[Any], name: str) -> None:
        returned = discarder.discard(ranges)
        if name == INFLATE:
            account[0]["inflated_returned_bytes"] += returned
        if virtual_cost is not None:
            await virtual_cost(len(ranges))

    async def nothing_to_discard() -> None:
        if virtual_cost is not None:
            await virtual_cost(0)

    handle_hints = _forget if migration is None else migration.skip
    try:
        async with trio.open_nursery() as nursery:
            for name in device.queues:
                nursery.start_soon(
                    partial(
                        _serve,
                        device,
                        name,
                        kick=wires[f"{name}.kick"],
                        call=wires[f"{name}.call"],
                        discard=handle_hints if name == FREE_PAGE else partial(discard, name=name),
                        otherwise=None if name == FREE_PAGE else nothing_to_discard,
                    )
                )
    finally:
        account_for(device, account[0])


async def _serve(device: BalloonDevice, name: str, **served: Any) -> None:
    """Serve one queue; RunFailed when the guest has broken it."""
    await serve_queue(device, name, **served)
    raise RunFailed(f"the guest broke its balloon device: {device.broken}")


def account_for(device: BalloonDevice, account: Any) -> None:
    """What a device has seen of its guest, which is about to go: a record of HOST."""
    names = queue_indices(device.features)
    seen = device.statistics(INFLATE)
    bad = seen.numbers - seen.accepted + seen.bad_buffers
    account["balloon_bytes"] = device.balloon_bytes
    if REPORTING in names:
        seen = device.statistics(REPORTING)
        bad += seen.elements - seen.accepted
    if STATS in names:
        account["guest_statistics"] = device.statistics(STATS).updates
    account["bad_elements"] = bad
    account["broken"] = device.broken is not None


async def _forget(ranges: npt.NDArray[Any]) -> None:
    """A hint that nobody asked for."""
