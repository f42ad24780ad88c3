"""The driver's half of free page hints, without I/O (Linux 6.6, drivers/virtio/virtio_balloon.c).

The device asks, by an id in its configuration; the driver sends the id, then blocks of free memory,
one a buffer, then STOP.  It keeps the blocks until the device says DONE.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import HINT_COMMAND_BYTES, HINT_STOP
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.driver_queue import DriverQueue

_COMMAND: Final = -1  # The token of a command; those of blocks are 0 and above.


class FreePageDriver:
    """Lays commands and blocks into the free page queue, and says which blocks were used.

    queue:         the driver's half of the queue `free_page`, of at least 2 entries
    config:        `BALLOON_CONFIG[1]`, written by the device
    command:       `uint32[2]`, what commands are sent from, at `command_addr` in guest memory: the
                   id that is active, and STOP

    Raises ValueError for a queue of one entry (Linux: ENOSPC).
    """

    def __init__(
        self,
        queue: DriverQueue,
        config: npt.NDArray[Any],
        command: npt.NDArray[np.uint32],
        command_addr: int,
    ) -> None:
        if queue.size < 2:
            raise ValueError("a free page queue of 1 entry, which commands need; use 2 or more")
        self.queue: Final = queue
        self._config = config
        self._command = command
        self._command_addr = command_addr
        self._in_flight = 0

    def asked(self) -> int:
        """What the device's configuration says: HINT_STOP, HINT_DONE, or an id."""
        return int(self._config[0]["free_page_hint_cmd_id"])

    def add_command(self, command: int) -> bool:
        """Send an id, or HINT_STOP; False: the ring is full."""
        slot = int(command == HINT_STOP)
        self._command[slot] = command
        addr = self._command_addr + slot * HINT_COMMAND_BYTES
        return self._add(segments([addr], [HINT_COMMAND_BYTES]), NO_SEGMENTS, _COMMAND)

    @property
    def full(self) -> bool:
        """Whether only the entry that is kept for commands is free."""
        return self._in_flight >= self.queue.size - 1

    def add_block(self, addr: int, length: int, token: int) -> bool:
        """Hint a block of memory; False: the ring is full."""
        return not self.full and self._add(NO_SEGMENTS, segments([addr], [length]), token)

    def publish(self) -> bool:
        """Make it visible to the device; whether it must be kicked."""
        return self.queue.publish()

    def take_used(self) -> list[int]:
        """The tokens of blocks that the device has used since; DeviceError if it misbehaves."""
        used = [token for token, _ in self.queue.pop_used()]
        self._in_flight -= len(used)
        return [token for token in used if token != _COMMAND]

    def _add(self, readable: npt.NDArray[Any], writable: npt.NDArray[Any], token: int) -> bool:
        added = self.queue.add(readable, writable, token)
        self._in_flight += added
        return added
