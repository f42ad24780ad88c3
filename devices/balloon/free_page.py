"""Free page hints (VIRTIO 1.3, section 5.5.6.5): the device asks which memory nobody needs."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from devices.balloon.config_space import ConfigSpace
from devices.balloon.handler import NO_RANGES
from devices.balloon.layout import (
    HINT_COMMAND_BYTES,
    HINT_DONE,
    HINT_ID_FIRST,
    HINT_ID_MAX,
    HINT_STOP,
)
from devices.balloon.reporting import ReportingHandler
from devices.memory.address_space import AddressSpace
from devices.virtio.chain import NO_SEGMENTS, Chain
from devices.virtio.errors import DriverError


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePageStatistics:
    """Since the device was made: what the driver sent, and what of it counted."""

    commands: int = 0
    elements: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    stale: int = 0  # came when no hint was asked for, or before the driver named the round


class FreePageHandler:
    """While it is asked, the driver names memory that nobody needs.

    The device asks with an id in its configuration; the driver sends that id as a buffer to read,
    then a block of memory with each buffer to write, then STOP.  `ranges` are those of blocks that
    came in between.

        stopped    -- request() -->  requested  -- the id comes -->  started
        requested, started  -- stop(), or another command comes while started -->  stopped
        any        -- done() -->     stopped, and the driver gets its blocks back

    """

    def __init__(self, *, config: ConfigSpace) -> None:
        self._checked = ReportingHandler(features=0, config=config)
        self._config = config
        self._id = HINT_ID_FIRST - 1
        self._requested = self._started = False
        self._commands = self._elements = self._stale = 0

    def request(self) -> None:
        """Ask for hints, under the next id."""
        self._id = HINT_ID_FIRST if self._id == HINT_ID_MAX else self._id + 1
        self._requested, self._started = True, False
        self._config.put("free_page_hint_cmd_id", self._id)

    def stop(self) -> None:
        """No more hints; the driver keeps its blocks."""
        self._requested = self._started = False
        self._config.put("free_page_hint_cmd_id", HINT_STOP)

    def done(self) -> None:
        """The driver may have its blocks back."""
        self._requested = self._started = False
        self._config.put("free_page_hint_cmd_id", HINT_DONE)

    def reset(self) -> None:
        """Nothing is asked for any more; the driver, which resets, is not told."""
        self._requested = self._started = False
        self._config.words[0]["free_page_hint_cmd_id"] = HINT_STOP

    def ranges(self, chain: Chain, address_space: AddressSpace) -> npt.NDArray[Any]:
        """Raises DriverError for a command that is not one readable buffer of 4 bytes."""
        self._elements += len(chain.readable) + len(chain.writable)
        if len(chain.readable):
            self._take_command(chain, address_space)
        if not self._started:
            self._stale += len(chain.writable)
            return NO_RANGES
        return self._checked.ranges(Chain(chain.head, NO_SEGMENTS, chain.writable), address_space)

    def _take_command(self, chain: Chain, address_space: AddressSpace) -> None:
        self._commands += 1
        addr, length = (int(chain.readable[0][name]) for name in ("addr", "len"))
        view = address_space.view(addr, length)
        if len(chain.readable) != 1 or length != HINT_COMMAND_BYTES or view is None:
            raise DriverError(f"a free page command of {length} bytes at {addr:#x}, not of 4")
        command = int.from_bytes(view.tobytes(), "little")
        if self._requested and command == self._id:
            self._requested, self._started = False, True
        elif self._started:
            self._started = False

    def statistics(self) -> FreePageStatistics:
        seen = self._checked.statistics()
        return FreePageStatistics(
            commands=self._commands,
            elements=self._elements,
            accepted=seen.accepted,
            accepted_bytes=seen.accepted_bytes,
            stale=self._stale,
        )

    def validate(self) -> None:
        """Assert that what was hinted is accounted for."""
        self._checked.validate()
