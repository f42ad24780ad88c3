"""Free page hints: both halves on one ring, and a driver that breaks the rules (5.5.6.5)."""

from typing import Any

import numpy as np
import pytest

from devices.balloon.config_space import ConfigSpace
from devices.balloon.device import BalloonDevice
from devices.balloon.free_page import FreePageHandler
from devices.balloon.free_page_driver import FreePageDriver
from devices.balloon.layout import (
    BALLOON_CONFIG,
    F_FREE_PAGE_HINT,
    FREE_PAGE,
    HINT_DONE,
    HINT_ID_FIRST,
    HINT_ID_MAX,
    HINT_STOP,
)
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.errors import DriverError
from tests.devices.rings import RAM_ADDR, Rings

COMMAND_ADDR = 0x9000_0000_0000
BLOCK = 4 << 20
OUTSIDE = 0x7000_0000_0000


class Balloon:
    """A driver and a device that share a ring, a configuration and the command words."""

    def __init__(self, size: int = 8) -> None:
        self.rings = Rings(size)
        self.config = np.zeros(1, BALLOON_CONFIG)
        self.command = np.zeros(2, np.uint32)
        region = MemoryRegion(
            guest_addr=COMMAND_ADDR, size_bytes=8, memory=self.command.view(np.uint8)
        )
        space = AddressSpace([*self.rings.address_space.regions, region])
        queue = DeviceQueue(self.rings.views, space, features=0)
        features = 1 << F_FREE_PAGE_HINT
        self.device = BalloonDevice(
            {FREE_PAGE: queue}, space, features=features, config=ConfigSpace(self.config)
        )
        self.driver = FreePageDriver(self.rings.driver, self.config, self.command, COMMAND_ADDR)

    @property
    def handler(self) -> FreePageHandler:
        assert self.device.free_pages is not None
        return self.device.free_pages

    def hint(self, number: int) -> None:
        assert self.driver.add_block(RAM_ADDR + number * BLOCK, BLOCK, number)

    def handled(self) -> list[int]:
        """Serve all that is there; the offsets of ranges that counted, in blocks."""
        self.driver.publish()
        offsets = []
        while (request := self.device.take(FREE_PAGE)) is not None:
            offsets += [int(entry["offset"]) // BLOCK for entry in request.ranges]
            self.device.complete(request)
        return offsets


def test_what_is_hinted_between_the_id_and_stop_counts() -> None:
    balloon = Balloon()
    assert balloon.driver.asked() == HINT_STOP
    balloon.handler.request()
    asked = balloon.driver.asked()
    assert asked == HINT_ID_FIRST
    balloon.hint(0)  # Before the id.
    assert balloon.driver.add_command(asked)
    balloon.hint(1)
    balloon.hint(2)
    assert balloon.driver.add_command(HINT_STOP)
    balloon.hint(3)  # After it.
    assert balloon.handled() == [1, 2]
    assert balloon.driver.take_used() == [0, 1, 2, 3]
    seen = balloon.handler.statistics()
    assert (seen.commands, seen.elements, seen.accepted, seen.stale) == (2, 6, 2, 2)
    assert seen.accepted_bytes == 2 * BLOCK
    balloon.device.validate()


def test_the_id_of_an_older_round_is_stale() -> None:
    balloon = Balloon()
    balloon.handler.request()
    old = balloon.driver.asked()
    balloon.handler.stop()
    assert balloon.driver.asked() == HINT_STOP
    balloon.handler.request()
    assert balloon.driver.asked() == old + 1
    balloon.driver.add_command(old)
    balloon.hint(0)
    assert balloon.handled() == []
    balloon.driver.add_command(HINT_STOP)  # Of the older round: this one is still asked for.
    balloon.driver.add_command(old + 1)
    balloon.hint(1)
    assert balloon.handled() == [1]


@pytest.mark.parametrize("end", ["stop", "done"])
def test_nothing_counts_once_the_device_has_stopped(end: str) -> None:
    balloon = Balloon()
    balloon.handler.request()
    balloon.driver.add_command(balloon.driver.asked())
    assert balloon.handled() == []
    getattr(balloon.handler, end)()
    assert balloon.driver.asked() == (HINT_STOP if end == "stop" else HINT_DONE)
    balloon.hint(0)
    assert balloon.handled() == []
    assert balloon.driver.take_used() == [0]  # Completed all the same.


def test_ids_wrap_to_the_first() -> None:
    balloon = Balloon()
    balloon.handler._id = HINT_ID_MAX
    balloon.handler.request()
    assert balloon.driver.asked() == HINT_ID_FIRST


def test_memory_outside_the_guest_is_dropped() -> None:
    balloon = Balloon()
    balloon.handler.request()
    balloon.driver.add_command(balloon.driver.asked())
    assert balloon.driver.add_block(OUTSIDE, BLOCK, 0)
    assert balloon.driver.add_block(RAM_ADDR + 1, BLOCK, 1)
    assert balloon.handled() == []
    assert balloon.handler.statistics().accepted == 0


@pytest.mark.parametrize(
    ("addr", "length"), [(COMMAND_ADDR, 2), (COMMAND_ADDR, 8), (OUTSIDE, 4), (COMMAND_ADDR + 6, 4)]
)
def test_a_command_that_is_not_four_readable_bytes_breaks_the_device(
    addr: int, length: int
) -> None:
    balloon = Balloon()
    balloon.handler.request()
    balloon.rings.driver.add(segments([addr], [length]), NO_SEGMENTS, -1)
    balloon.driver.publish()
    with pytest.raises(DriverError, match=f"a free page command of {length} bytes"):
        balloon.device.take(FREE_PAGE)


def test_two_buffers_are_no_command() -> None:
    balloon = Balloon()
    buffers = segments([COMMAND_ADDR, COMMAND_ADDR + 4], [4, 4])
    balloon.rings.driver.add(buffers, NO_SEGMENTS, -1)
    balloon.driver.publish()
    with pytest.raises(DriverError, match="a free page command"):
        balloon.device.take(FREE_PAGE)


def test_one_entry_is_kept_for_commands() -> None:
    balloon = Balloon(size=4)
    for number in range(3):
        balloon.hint(number)
    assert balloon.driver.full
    assert not balloon.driver.add_block(RAM_ADDR, BLOCK, 9)
    assert balloon.driver.add_command(HINT_STOP)
    assert not balloon.driver.add_command(HINT_STOP)
    assert balloon.handled() == []
    assert balloon.driver.take_used() == [0, 1, 2]
    assert not balloon.driver.full


def test_a_queue_of_one_entry_is_rejected() -> None:
    rings = Rings(1)
    config: Any = np.zeros(1, BALLOON_CONFIG)
    with pytest.raises(ValueError, match="a free page queue of 1 entry"):
        FreePageDriver(rings.driver, config, np.zeros(2, np.uint32), COMMAND_ADDR)
