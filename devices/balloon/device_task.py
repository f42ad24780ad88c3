"""Serves the queues of a balloon device."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy.typing as npt
import trio

from devices.balloon.device import BalloonDevice
from devices.virtio.errors import DriverError
from devices.virtio.notifier import Notifier


async def serve_queue(
    device: BalloonDevice,
    name: str,
    *,
    kick: Notifier,
    call: Notifier,
    discard: Callable[[npt.NDArray[Any]], Awaitable[None]],
    otherwise: Callable[[], Awaitable[None]] | None = None,
    requests_max: int = 64,
) -> None:
    """Serve the queue `name` until the driver breaks the protocol, or for ever.

    kick, call:    wake us, and the driver
    discard:       awaited with the `DISCARD_RANGE[n]`, n >= 1, of each request, before that
                   request is given back; what it raises ends the task, the request not given back
    otherwise:     awaited in its place for a request of which nothing is discarded
    requests_max:  served before other tasks get their turn

    Returns, with `device.broken` set, after a DriverError: until then nothing is lost, and after
    it nothing is touched.  A request that a cancellation finds is completed first: `discard` and
    `otherwise` are shielded and must end by themselves.
    """
    queue = device.queues[name]
    try:
        # Shielded during a request; to enter a scope for each costs several times as much.
        with trio.CancelScope() as scope:
            while device.broken is None:
                queue.disable_notifications()
                more = await _serve(device, name, call, scope, discard, otherwise, requests_max)
                if more or queue.enable_notifications():
                    await trio.lowlevel.checkpoint()
                else:
                    await kick.wait_notified()
    except DriverError as error:
        device.mark_broken(f"queue {name}: {error}")


async def _serve(
    device: BalloonDevice,
    name: str,
    call: Notifier,
    scope: trio.CancelScope,
    discard: Callable[[npt.NDArray[Any]], Awaitable[None]],
    otherwise: Callable[[], Awaitable[None]] | None,
    requests_max: int,
) -> bool:
    """Serve what is there; whether there may be more."""
    for _ in range(requests_max):
        request = device.take(name)
        if request is None:
            return False
        scope.shield = True
        if len(request.ranges):
            await discard(request.ranges)
        elif otherwise is not None:
            await otherwise()
        scope.shield = False
        if device.complete(request):
            call.notify()
    return True


async def poll_statistics(
    device: BalloonDevice, *, call: Notifier, wait_due: Callable[[], Awaitable[None]]
) -> None:
    """Ask the driver for its figures whenever that is due, for ever; `serve_queue` takes them."""
    while True:
        await wait_due()
        if device.broken is None and device.ask_statistics():
            call.notify()
