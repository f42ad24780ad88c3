"""Sends the guest's figures whenever the device asks."""

from collections.abc import Callable, Mapping

import trio

from devices.balloon.stats_driver import StatsDriver
from devices.virtio.notifier import Notifier


async def answer_statistics(
    driver: StatsDriver,
    figures: Callable[[], Mapping[str, int]],
    *,
    kick: Notifier,
    call: Notifier,
) -> None:
    """Send `figures()`, and anew whenever the device asks, for ever.

    Raises DeviceError if the device broke the protocol.
    """
    while True:
        driver.add(figures())
        if driver.publish():
            kick.notify()
        while not driver.asked():
            if not driver.queue.enable_notifications():
                await call.wait_notified()
        await trio.lowlevel.checkpoint()
