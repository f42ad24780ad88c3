"""The driver's half of the inflate and deflate queues, without I/O (Linux 6.6, virtio_balloon.c).

One buffer of page numbers is in flight at most, and the next is made when the device has used it,
as Linux's tell_host() waits.  Until an inflated page's buffer is used, the page must not be taken
out of the balloon again; until a deflated page's buffer is used, the page must not be used.

    idle      -- add() -->  in flight  -- the device uses it -->  idle, told
    in flight -- reset() -->  stopped  -- restart() -->  idle
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from devices.balloon.layout import PFN
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.driver_queue import DriverQueue


@dataclass(slots=True, eq=False)
class Batch:
    """Page numbers that were sent, and what became of them.

    acknowledged:  None while the device has them; then whether they were used (True) or reset
    """

    count: int
    acknowledged: bool | None = None


class PageNumberDriver:
    """Lays page numbers into one queue, and says when the device has taken them.

    queue:  the driver's half of the queue `inflate` or `deflate`
    pfns:   `PFN[pfns_max]`, what the numbers are sent from, at `pfns_addr` in guest memory
    """

    def __init__(self, queue: DriverQueue, pfns: npt.NDArray[Any], pfns_addr: int) -> None:
        self.queue: Final = queue
        self.running = True
        self.told_pages = 0  # Since the driver was made: numbers that the device has used.
        self._pfns = pfns
        self._pfns_addr = pfns_addr
        self._in_flight: Batch | None = None

    @property
    def pfns_max(self) -> int:
        """The most numbers that one buffer holds."""
        return len(self._pfns)

    def add(self, pfns: npt.NDArray[Any]) -> Batch:
        """Lay a buffer of numbers, u4[1 .. pfns_max], into the ring, not yet visible.

        Raises ValueError for none or too many.
        """
        assert self.running
        assert self._in_flight is None
        if not 1 <= len(pfns) <= self.pfns_max:
            raise ValueError(f"{len(pfns)} page numbers in a buffer; 1 to {self.pfns_max} work")
        self._pfns[: len(pfns)] = pfns
        buffer = segments([self._pfns_addr], [len(pfns) * PFN.itemsize])
        batch = Batch(len(pfns))
        added = self.queue.add(buffer, NO_SEGMENTS, batch)
        assert added, "an empty ring holds one buffer"
        self._in_flight = batch
        return batch

    def publish(self) -> bool:
        """Make it visible to the device; whether it must be kicked."""
        return self.queue.publish()

    def take_used(self) -> None:
        """Note if the device has used the buffer; DeviceError if it misbehaves."""
        assert self.running
        for batch, _ in self.queue.pop_used():
            batch.acknowledged = True
            self.told_pages += batch.count
            self._in_flight = None

    def reset(self) -> None:
        """The device has been stopped: it takes no numbers, and has forgotten those in flight."""
        self.running = False
        if self._in_flight is not None:
            self._in_flight.acknowledged = False
            self._in_flight = None

    def restart(self) -> None:
        """Empty the queue and go on; the device must begin at index 0, after this."""
        assert not self.running
        self.queue.initialize()
        self.running = True
