"""Tells the device which pages enter or leave the balloon, and waits until it knows."""

from typing import Any

import numpy.typing as npt

from devices.balloon.page_number_driver import PageNumberDriver
from devices.virtio.notifier import Notifier


class HostTeller:
    """Linux's tell_host(): one batch after another.

    kick:  wakes the device;  call:  is how the device wakes us
    """

    def __init__(self, driver: PageNumberDriver, *, kick: Notifier, call: Notifier) -> None:
        self.driver = driver
        self._kick = kick
        self._call = call

    async def tell(self, pfns: npt.NDArray[Any]) -> bool:
        """Send numbers, u4[1 .. pfns_max], and wait until the device has used them.

        True: it has; what it discards for them it has discarded.  False: it was reset, and knows
        of no balloon.  Under a shielded cancel scope it ends by itself, with either.

        Raises ValueError for none or too many, and DeviceError if the device broke the protocol.
        """
        driver = self.driver
        if not driver.running:
            return False
        batch = driver.add(pfns)
        if driver.publish():
            self._kick.notify()
        while batch.acknowledged is None:
            if not driver.queue.enable_notifications():
                await self._call.wait_notified()
            if driver.running:
                driver.queue.disable_notifications()
                driver.take_used()
        return batch.acknowledged

    def reset(self) -> None:
        """The device has been stopped: `tell` returns False, one that waits and all later ones."""
        self.driver.reset()
        self._call.notify()
