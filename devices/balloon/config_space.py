"""The device's configuration, as either side reads and writes it (VIRTIO 1.3, section 5.5.4).

16 bytes, little-endian always.  The driver reads all of it and writes `actual` and `poison_val`;
what else it writes is ignored, as QEMU does, and counted.  The device writes the rest, and the
driver is interrupted when it does.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import BALLOON_CONFIG, DRIVER_FIELDS
from devices.virtio.errors import DriverError

CONFIG_BYTES: Final = BALLOON_CONFIG.itemsize


def _nothing() -> None:
    """Nobody is to be told."""


class ConfigSpace:
    """The device's side of the configuration.

    words:    `BALLOON_CONFIG[1]`, where the driver sees it; None: memory of its own, for drivers
              that read and write by messages
    changed:  called after the device changed a field: interrupts the driver
    """

    def __init__(
        self, words: npt.NDArray[Any] | None = None, changed: Callable[[], None] = _nothing
    ) -> None:
        self.words: Final = np.zeros(1, dtype=BALLOON_CONFIG) if words is None else words
        self.changed = changed
        self.ignored_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        """The driver reads; DriverError unless all of it lies inside the 16 bytes."""
        _check_inside(offset, length)
        return self.words.tobytes()[offset : offset + length]

    def write(self, offset: int, data: bytes) -> None:
        """The driver writes; DriverError unless all of it lies inside the 16 bytes."""
        _check_inside(offset, len(data))
        new = np.frombuffer(self.words.tobytes(), np.uint8).copy()
        new[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        taken = 0
        for name in DRIVER_FIELDS:
            start, end = _place(name)
            touched = max(0, min(end, offset + len(data)) - max(start, offset))
            if touched:
                self.words[0][name] = new.view(BALLOON_CONFIG)[0][name]
                taken += touched
        self.ignored_bytes += len(data) - taken

    def put(self, name: str, value: int) -> None:
        """The device changes a field; the driver is told, also if the value is the old one."""
        self.words[0][name] = value
        self.changed()

    def reset(self) -> None:
        """Forget what the driver wrote; what the host wishes for stays.

        The driver is not told: it is the driver that resets.
        """
        for name in DRIVER_FIELDS:
            self.words[0][name] = 0


def _place(name: str) -> tuple[int, int]:
    """Where a field begins and ends, bytes."""
    assert BALLOON_CONFIG.fields is not None
    dtype, start = BALLOON_CONFIG.fields[name][:2]
    return start, start + dtype.itemsize


def _check_inside(offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > CONFIG_BYTES:
        raise DriverError(
            f"{length} bytes at {offset} of the configuration, which has {CONFIG_BYTES}"
        )
