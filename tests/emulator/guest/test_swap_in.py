"""What an actor waits for: its reads from the swap, and room in its host's memory."""

import numpy as np
import trio
from trio.testing import MockClock

from devices.memory.swap_layout import SWAP_CONTROL, SWAP_TRAFFIC
from devices.virtio.notifier import LocalNotifier
from emulator.guest.clock import Clock
from emulator.guest.mm.layout import KERNEL
from emulator.guest.swap_in import SwapIn


class Actor:
    """Actor 0 of a guest with two vCPUs; a page is read in 10 ms."""

    def __init__(self, stock_pages: int = 100) -> None:
        self.traffic = np.zeros(3, SWAP_TRAFFIC)
        self.control = np.zeros(1, SWAP_CONTROL)
        self.control["stock_pages"] = stock_pages
        self.pressure, self.relief = LocalNotifier(), LocalNotifier()
        kernel = np.zeros(1, KERNEL)
        kernel["virtual"] = 1
        self.swap = SwapIn(
            self.traffic,
            self.control,
            0,
            Clock(kernel),
            read_s=0.01,
            pressure=self.pressure,
            relief=self.relief,
        )

    def access(self, faulted: int, swapped_in: int = 0, actor: int = 0) -> None:
        self.traffic[actor]["faulted_pages"] += faulted
        self.traffic[actor]["swapped_in_pages"] += swapped_in

    async def host(self, for_s: float) -> None:
        """Answers a question after so long."""
        await self.pressure.wait_notified()
        await trio.sleep(for_s)
        self.traffic[0]["answered"] = self.traffic[0]["asked"]
        self.relief.notify()


async def test_each_page_that_came_back_is_one_read(autojump_clock: MockClock) -> None:
    actor = Actor()
    assert await actor.swap.settle() == 0
    actor.access(faulted=50, swapped_in=3)
    actor.access(faulted=50, swapped_in=9, actor=1)  # Another's.
    assert await actor.swap.settle() == 0.03
    assert await actor.swap.settle() == 0
    assert actor.traffic["waited_ns"].tolist() == [30_000_000, 0, 0]
    assert actor.traffic[0]["asked"] == 0


async def test_it_asks_for_more_than_its_stock_and_waits_for_the_answer(
    autojump_clock: MockClock,
) -> None:
    actor = Actor(stock_pages=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.host, 2.0)
        actor.access(faulted=98, swapped_in=2)
        assert await actor.swap.settle() == 0.02
        assert actor.traffic[0]["asked"] == 0
        actor.access(faulted=1)
        assert await actor.swap.settle() == 2.0
        assert actor.traffic[0]["asked"] == 1
        actor.access(faulted=100)  # A new stock.
        assert await actor.swap.settle() == 0
        nursery.cancel_scope.cancel()


async def test_reading_and_writing_overlap(autojump_clock: MockClock) -> None:
    actor = Actor(stock_pages=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.host, 0.5)
        actor.access(faulted=0, swapped_in=80)
        assert await actor.swap.settle() == 0.8


async def test_one_task_for_all_vcpus_waits_as_one_of_them_does_on_average(
    autojump_clock: MockClock,
) -> None:
    actor = Actor()
    actor.swap.count_all()
    actor.access(faulted=0, swapped_in=2)
    actor.access(faulted=0, swapped_in=6, actor=1)
    actor.access(faulted=0, swapped_in=50, actor=2)  # The guest's kernel pays itself.
    assert await actor.swap.settle() == 0.04
