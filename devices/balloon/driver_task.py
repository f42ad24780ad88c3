"""Reports free memory and waits until the device has let go of it."""

from typing import Any

import numpy.typing as npt
import trio

from devices.balloon.driver import BalloonDriver, Report
from devices.balloon.layout import REPORTING
from devices.virtio.notifier import Notifier


class FreePageReporter:
    """Reports batches of free ranges through a balloon driver, one after another as Linux does.

    kick:  wakes the device;  call:  is how the device wakes us
    """

    def __init__(self, driver: BalloonDriver, *, kick: Notifier, call: Notifier) -> None:
        self.driver = driver
        self._kick = kick
        self._call = call
        self._turn = trio.Lock()

    async def report(self, ranges: npt.NDArray[Any]) -> bool:
        """Report `ranges`, `SEGMENT[1 .. driver.ranges_max]`, and wait until the device used them.

        True: acknowledged; the device has discarded what it will discard.  False: the device was
        reset, and holds nothing any more.  Either way it will not touch the ranges again.
        Under a shielded cancel scope it ends by itself, with the acknowledgement or with `reset`.
        If it is cancelled instead, the device keeps the ranges until then.

        Raises ValueError for no ranges or too many, and DeviceError if the device broke the
        protocol: it still holds the ranges, and must be stopped before they are used again.
        """
        async with self._turn:
            while self.driver.running:
                report = self.driver.add_report(ranges)
                if report is not None:
                    return await self._acknowledged(report)
                await self._wait_used()  # Full of reports whose tasks were cancelled.
            return False

    def reset(self) -> None:
        """The device has been stopped: a report that is waiting returns False, and all later ones.

        `driver.restart()` takes reports again.
        """
        self.driver.reset()
        self._call.notify()

    async def _acknowledged(self, report: Report) -> bool:
        """Publish the report, and wait until it has ended."""
        if self.driver.publish_reports():
            self._kick.notify()
        while report.acknowledged is None:
            await self._wait_used()
        return report.acknowledged

    async def _wait_used(self) -> None:
        """Return when the device may have used something, or was reset."""
        queue = self.driver.queues[REPORTING]
        if not queue.enable_notifications():
            await self._call.wait_notified()
        if self.driver.running:
            queue.disable_notifications()
            self.driver.take_acknowledged()
