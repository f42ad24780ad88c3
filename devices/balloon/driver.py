"""The driver's half of the balloon, without I/O (Linux 6.6, drivers/virtio/virtio_balloon.c).

A report is *one* request: a chain of one device-writable buffer for each range of free memory.
Until the device returns it, the device may discard these ranges at any time.

    running:  reports are taken       -- reset() -->  all reports in flight end, none is taken
    reset:    the device is stopped   -- restart() -->  empty queues, running again
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from devices.balloon.layout import REPORTING
from devices.virtio.chain import NO_SEGMENTS
from devices.virtio.driver_queue import DriverQueue


@dataclass(slots=True, eq=False)
class Report:
    """A report that was made, and what became of it.

    acknowledged:  None while the device has it; then whether it was used (True) or reset (False)
    """

    acknowledged: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalloonDriverStatistics:
    """Since the driver was made; `aborted` reports ended with a reset."""

    reports: int
    reported_ranges: int
    reported_bytes: int
    acknowledged: int
    aborted: int
    in_flight: int


class BalloonDriver:
    """Turns batches of free ranges into requests, and says which of them the device has used.

    queues:  the driver's half of each queue that was negotiated, by name (`layout.QUEUES`).

    Raises ValueError if the reporting queue is missing.
    """

    def __init__(self, queues: Mapping[str, DriverQueue]) -> None:
        if REPORTING not in queues:
            raise ValueError(
                f"no {REPORTING} queue among {sorted(queues)}; the device must offer PAGE_REPORTING"
            )
        self.queues = dict(queues)
        self.running = True
        self._in_flight: set[Report] = set()
        self._reports = self._ranges = self._bytes = self._acknowledged = self._aborted = 0

    @property
    def ranges_max(self) -> int:
        """The most ranges that one report can hold: the size of the reporting queue."""
        return self.queues[REPORTING].size

    def add_report(self, ranges: npt.NDArray[Any]) -> Report | None:
        """Lay a report of `ranges`, `SEGMENT[1 .. ranges_max]`, into the ring, not yet visible.

        None: the ring is full.  Raises ValueError for no ranges or too many.
        """
        assert self.running
        report = Report()
        if not self.queues[REPORTING].add(NO_SEGMENTS, ranges, report):
            return None
        self._in_flight.add(report)
        self._reports += 1
        self._ranges += len(ranges)
        self._bytes += int(ranges["len"].sum(dtype="u8"))
        return report

    def publish_reports(self) -> bool:
        """Make added reports visible to the device; whether it must be kicked."""
        assert self.running
        return self.queues[REPORTING].publish()

    def take_acknowledged(self) -> None:
        """Take back what the device has used; the used length is ignored, as by Linux.

        Raises DeviceError if the device returned what it was never lent.
        """
        assert self.running
        for report, _ in self.queues[REPORTING].pop_used():
            report.acknowledged = True
            self._in_flight.remove(report)
            self._acknowledged += 1

    def reset(self) -> None:
        """The device has been stopped: what is in flight ends unacknowledged, nothing is taken."""
        self.running = False
        for report in self._in_flight:
            report.acknowledged = False
        self._aborted += len(self._in_flight)
        self._in_flight.clear()

    def restart(self) -> None:
        """Empty all queues and take reports again; the device must begin at index 0, after this."""
        assert not self.running
        for queue in self.queues.values():
            queue.initialize()
        self.running = True

    def statistics(self) -> BalloonDriverStatistics:
        return BalloonDriverStatistics(
            reports=self._reports,
            reported_ranges=self._ranges,
            reported_bytes=self._bytes,
            acknowledged=self._acknowledged,
            aborted=self._aborted,
            in_flight=len(self._in_flight),
        )

    def validate(self) -> None:
        """Assert that each report was acknowledged, was aborted or is in flight."""
        assert self._reports == self._acknowledged + self._aborted + len(self._in_flight)
        if self.running:
            for queue in self.queues.values():
                queue.validate()
            assert self.queues[REPORTING].statistics().in_flight == len(self._in_flight)
