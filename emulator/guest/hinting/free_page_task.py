"""The hinting task of `free_page_hint`: the host asks, the guest answers with all that is free."""

from typing import Any, Final, NamedTuple, Protocol

import numpy.typing as npt
import trio

from devices.balloon.free_page_driver import FreePageDriver
from devices.balloon.layout import HINT_DONE, HINT_STOP
from devices.virtio.notifier import Notifier
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.task import pay
from emulator.guest.mm.layout import PAGE_SHIFT


class FreePageHinter:
    """The driver, how it wakes the device (`kick`), and how that wakes us (`call`).

    `call` is one interrupt for the queue and the configuration, as on a shared line.
    """

    def __init__(self, driver: FreePageDriver, *, kick: Notifier, call: Notifier) -> None:
        self.driver: Final = driver
        self.kick: Final = kick
        self.call: Final = call

    def reset(self) -> None:
        """The device has been stopped.  Nothing waits for it: what it held stays held."""


class Block(NamedTuple):
    """A block that is held: its place in the table, guest-physical address, length in bytes."""

    slot: int
    addr: int
    length: int


class FreePageHintCycle(Protocol):
    """What the mechanism does when it is asked; none of it waits."""

    def take(self) -> Block | None:
        """Hold one more block of free memory, or None."""

    def acknowledge(self, slot: int) -> int:
        """The host has handled this block; returns its order."""

    def give_all_back(self) -> None:
        """The host has no more use for any of them."""


async def hint_free_pages(
    cycle: FreePageHintCycle,
    hinter: FreePageHinter,
    hinting: npt.NDArray[Any],
    costs: GuestCosts | None = None,
) -> None:
    """Answer the host for ever (report_free_page_func).

    hinting: HINTING[1], what it counts;  costs: what it pays in virtual time.
    """
    driver, counts = hinter.driver, hinting[0]
    active: int | None = None  # The id that is being answered.
    answered = HINT_STOP
    notified = 0
    while True:
        await trio.lowlevel.checkpoint()
        await pay(costs, reports=notified)
        notified = 0
        for slot in driver.take_used():
            order = cycle.acknowledge(slot)
            counts["reports"] += 1
            counts["blocks"] += 1
            counts["claimed_bytes"] += 1 << (order + PAGE_SHIFT)
        asked = driver.asked()
        if asked == HINT_DONE:
            cycle.give_all_back()
        if active is None:
            if asked not in (HINT_DONE, HINT_STOP, answered) and driver.add_command(asked):
                active = answered = asked
                notified += _publish(hinter)
                continue
        elif asked == active and driver.full:
            pass  # Linux spins here: it allocates and frees until an entry is used.
        elif asked == active and _hint_one(cycle, driver):
            notified += _publish(hinter)
            continue
        elif driver.add_command(HINT_STOP):
            active = None
            notified += _publish(hinter)
            continue
        if not driver.queue.enable_notifications():
            await hinter.call.wait_notified()
            counts["wakeups"] += 1


def _hint_one(cycle: FreePageHintCycle, driver: FreePageDriver) -> bool:
    """Take a block and hint it; False: none is free."""
    block = cycle.take()
    if block is not None:
        added = driver.add_block(block.addr, block.length, block.slot)
        assert added, "the ring had room, and only this task fills it"
    return block is not None


def _publish(hinter: FreePageHinter) -> bool:
    """Whether the host had to be notified."""
    if not hinter.driver.publish():
        return False
    hinter.kick.notify()
    return True
