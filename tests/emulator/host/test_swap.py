"""A host's limit and its swap, against counts and times worked out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.ram import HUGE_PAGES, PAGE_SIZE, GuestRam
from devices.memory.swap_layout import PAGE_OLD, PAGE_SWAPPED, PAGE_YOUNG
from devices.virtio.notifier import LocalNotifier
from emulator.host.discard import Discarder
from emulator.host.layout import HOST
from emulator.host.residency import host_sight, resident_bytes
from emulator.host.swap import Swap
from emulator.host.swap_task import SwapTask
from tests.support.swap_kernels import access

PAGES = 2 * HUGE_PAGES
ACTORS = 3


class Host:
    """Guests of 1024 pages; `limit` and `room` of the swap in pages."""

    def __init__(self, *, limit: int, room: int, guests: int = 1, huge: bool = False) -> None:
        self.rams = [
            GuestRam.create("accounted", PAGES * PAGE_SIZE, huge=huge, swap_actors=ACTORS)
            for _ in range(guests)
        ]
        self.accounts = [np.zeros(1, HOST) for _ in self.rams]
        self.swap = Swap(
            self.rams,
            self.accounts,
            memory_bytes=limit * PAGE_SIZE,
            swap_bytes=room * PAGE_SIZE,
        )

    def touch(self, *pages: int, guest: int = 0, actor: int = 0) -> None:
        """As an actor of the guest does: the first time, the host has nothing behind them."""
        for page in pages:
            access(self.rams[guest].view(), actor, page)

    def marks(self, count: int, guest: int = 0) -> list[int]:
        return [int(mark) for mark in self.rams[guest].swap_view().marks["mark"][:count]]

    def discard(self, first: int, count: int) -> int:
        given = np.zeros(1, DISCARD_RANGE)
        given["offset"], given["length"] = first * PAGE_SIZE, count * PAGE_SIZE
        return Discarder.of_ram(self.rams[0], self.accounts[0]).discard(given)


def test_what_is_resident_beyond_the_limit_is_over() -> None:
    host = Host(limit=10, room=100, guests=2)
    assert host.swap.over_pages() == -10
    host.touch(*range(8))
    host.touch(*range(5), guest=1, actor=2)
    assert host.swap.over_pages() == 3
    host.touch(*range(8))  # They are there already.
    assert host.swap.over_pages() == 3
    assert host.discard(0, 6) == 6 * PAGE_SIZE
    assert host.swap.over_pages() == -3


def test_a_page_that_was_accessed_gets_a_second_chance() -> None:
    host = Host(limit=1, room=100)
    host.touch(0, 1, 2, 3, 5)
    young, old, gone = PAGE_YOUNG, PAGE_OLD, PAGE_SWAPPED
    # Once round all become old, then the first two go.  Page 4 was never touched.
    assert host.swap.swap_out(2) == 2
    assert host.marks(6) == [gone, gone, old, old, young, old]
    host.touch(2)  # From page 2 on: that is spared, 3 and 5 go.
    assert host.swap.swap_out(2) == 2
    assert host.marks(6) == [gone, gone, old, gone, young, gone]
    assert host.swap.swap_out(2) == 1
    assert host.swap.swap_out(2) == 0  # There is nothing left.


def test_the_hand_goes_round_over_all_guests() -> None:
    host = Host(limit=1, room=100, guests=2)
    host.touch(7)
    host.touch(3, guest=1)
    assert host.swap.swap_out(5) == 2
    assert [int(account[0]["swapped_out_pages"]) for account in host.accounts] == [1, 1]


def test_what_comes_back_leaves_the_swap_and_keeps_its_content() -> None:
    host = Host(limit=1, room=100)
    host.touch(0, 1, 2)
    words = host.rams[0].view().words
    before = words[:3].tolist()
    assert host.swap.swap_out(3) == 3
    assert (host.swap.used_pages(), host.swap.over_pages()) == (3, -1)
    assert resident_bytes(host.rams[0]) == 0
    host.touch(1, actor=2)
    assert words[:3].tolist() == before
    assert host.rams[0].swap_view().traffic["swapped_in_pages"].tolist() == [0, 0, 1]
    assert (host.swap.used_pages(), host.swap.over_pages()) == (2, 0)
    assert resident_bytes(host.rams[0]) == PAGE_SIZE


def test_a_manager_sees_what_a_count_of_all_pages_finds() -> None:
    host = Host(limit=100, room=100, guests=2)
    guests = list(zip(host.rams, host.accounts, strict=True))
    sight = host_sight(100 * PAGE_SIZE, guests, 1)
    host.touch(*range(20))
    host.touch(*range(7), guest=1)
    host.swap.swap_out(9)
    host.discard(0, 12)
    host.touch(3, 4, 15)
    counted = sum(resident_bytes(ram) for ram in host.rams)
    assert 0 < counted < 27 * PAGE_SIZE
    seen = sight()
    assert (seen.memory_bytes - seen.free_bytes, seen.guests, seen.index) == (counted, 2, 1)


def test_a_discard_in_the_swap_gives_its_place_back_and_returns_nothing() -> None:
    host = Host(limit=1, room=2)
    host.touch(0, 1, 2, 3)
    assert host.swap.swap_out(4) == 2  # There is no more room.
    account = host.accounts[0][0]
    assert host.discard(0, 3) == PAGE_SIZE  # Only page 2 was in memory.
    assert int(account["swap_dropped_pages"]) == 2
    assert host.swap.used_pages() == 0
    assert host.swap.over_pages() == 0
    assert host.marks(4) == [PAGE_YOUNG, PAGE_YOUNG, PAGE_YOUNG, PAGE_OLD]
    assert int(account["discards"]) == 1


def test_returned_touched_again_and_dropped_in_the_swap_was_touched_again() -> None:
    host = Host(limit=1, room=9)
    discarder = Discarder.of_ram(host.rams[0], host.accounts[0])
    given = np.zeros(1, DISCARD_RANGE)
    given["length"] = PAGE_SIZE
    host.touch(0)
    assert discarder.discard(given) == PAGE_SIZE
    host.touch(0)
    assert host.swap.swap_out(1) == 1
    assert discarder.discard(given) == 0
    discarder.settle()
    assert int(host.accounts[0][0]["refaulted_bytes"]) == PAGE_SIZE


def test_a_full_swap_is_counted_and_the_limit_is_passed() -> None:
    host = Host(limit=1, room=2)
    host.touch(*range(6))
    assert host.swap.swap_out(6) == 2
    assert host.swap.swap_out(6) == 0
    assert (host.swap.over_pages(), int(host.accounts[0][0]["swap_full"])) == (3, 1)


def test_a_huge_page_is_split_when_a_part_of_it_is_swapped_out() -> None:
    host = Host(limit=1, room=100, huge=True)
    view = host.rams[0].view()
    view.huge[:] = 1
    view.words[:] = 1
    assert host.swap.swap_out(1) == 1
    assert view.huge.tolist() == [0, 1]


def test_actors_may_add_half_of_what_there_is_before_they_ask() -> None:
    host = Host(limit=96, room=100, guests=2)
    controls = [int(ram.swap_control()[0]["stock_pages"]) for ram in host.rams]
    assert controls == [8, 8]  # 96 pages, of six actors.
    host.touch(*range(84))
    host.swap.allow()
    assert int(host.rams[1].swap_control()[0]["stock_pages"]) == 1
    host.touch(*range(90, 110))
    host.swap.allow()
    assert int(host.rams[1].swap_control()[0]["stock_pages"]) == 0


async def asked_host(host: Host, check: Callable[[], None], after_s: float) -> None:
    """The last actor of the last guest asks at 1 s; `check` is called when it is answered."""
    reliefs = [LocalNotifier() for _ in range(ACTORS * len(host.rams))]
    pressures = [LocalNotifier() for _ in host.rams]
    record = host.rams[-1].swap_view().traffic[-1]
    task = SwapTask(host.swap, reliefs, write_bytes_per_s=256 * PAGE_SIZE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run, pressures)
        await trio.sleep(1)
        record["asked"] += 1
        pressures[-1].notify()
        await reliefs[-1].wait_notified()
        assert record["answered"] == 1
        assert trio.current_time() == pytest.approx(1 + after_s)
        check()
        nursery.cancel_scope.cancel()


async def test_who_asks_waits_until_enough_is_written(autojump_clock: MockClock) -> None:
    """Pages 0 to 99 and 700 more: 300 beyond the limit, and 256 are written a second."""
    host = Host(limit=500, room=1000)
    host.touch(*range(100))
    host.touch(*range(200, 900), actor=1)
    host.swap.questions()

    def within_the_limit() -> None:
        assert host.swap.over_pages() == 0
        assert host.swap.used_pages() == 300

    # It began at once, when the task was started: 172 ms are left at 1 s.
    await asked_host(host, within_the_limit, after_s=300 / 256 - 1)


async def test_who_asks_a_host_with_a_full_swap_goes_on(autojump_clock: MockClock) -> None:
    host = Host(limit=10, room=16, guests=2)
    host.touch(*range(100), guest=1)

    def passed() -> None:
        assert host.swap.over_pages() == 74
        assert all(int(account[0]["swap_full"]) >= 1 for account in host.accounts)

    await asked_host(host, passed, after_s=0)


async def test_who_asks_a_host_with_room_goes_on_at_once(autojump_clock: MockClock) -> None:
    host = Host(limit=10, room=16)
    await asked_host(host, lambda: None, after_s=0)
