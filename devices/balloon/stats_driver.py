"""The driver's half of the statistics queue, without I/O (Linux 6.6, virtio_balloon.c).

One buffer, sent once at the start and then whenever the device gives it back: that is how it asks.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy.typing as npt

from devices.balloon.layout import STATS_ENTRY, STATS_TAGS
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.driver_queue import DriverQueue

_TAGS: Final = {name: tag for tag, name in STATS_TAGS.items()}


class StatsDriver:
    """Sends figures by the names of `STATS_TAGS`.

    queue:    the driver's half of the queue `stats`
    entries:  `STATS_ENTRY[n]`, what they are sent from, at `entries_addr` in guest memory
    """

    def __init__(self, queue: DriverQueue, entries: npt.NDArray[Any], entries_addr: int) -> None:
        self.queue: Final = queue
        self._entries = entries
        self._entries_addr = entries_addr
        self._in_flight = False

    def add(self, figures: Mapping[str, int]) -> None:
        """Lay the figures into the ring, not yet visible; the device must not have the buffer.

        Raises ValueError for no figures, more than fit, or a name without a tag.
        """
        assert not self._in_flight
        unknown = sorted(figures.keys() - _TAGS.keys())
        if unknown or not 1 <= len(figures) <= len(self._entries):
            raise ValueError(
                f"{len(figures)} figures, of which {unknown} have no tag; 1 to "
                f"{len(self._entries)} of {', '.join(_TAGS)} work"
            )
        for index, (name, value) in enumerate(figures.items()):
            self._entries[index] = (_TAGS[name], value)
        buffer = segments([self._entries_addr], [len(figures) * STATS_ENTRY.itemsize])
        self._in_flight = self.queue.add(buffer, NO_SEGMENTS, None)
        assert self._in_flight, "an empty ring holds one buffer"

    def publish(self) -> bool:
        """Make them visible to the device; whether it must be kicked."""
        return self.queue.publish()

    def asked(self) -> bool:
        """Whether the device has given the buffer back; DeviceError if it misbehaves."""
        if self.queue.pop_used():
            self._in_flight = False
        return not self._in_flight
