"""The hinting task: reports what a cycle asks for, and puts it back only when it may."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from devices.virtio.notifier import LocalNotifier
from emulator.guest.clock import Clock
from emulator.guest.hinting.layout import HINTING
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.guest.hinting.task import report_free_pages
from emulator.guest.histogram import percentile
from emulator.guest.mm.layout import ISOLATED, MOVABLE, PAGE_SIZE
from tests.support.allocator_kernels import give
from tests.support.guest import Guest, ZoneOf


class Host:
    """Acknowledges after a time, or fails."""

    def __init__(self, *, takes_s: float = 0.0, answer: bool = True) -> None:
        self.takes_s, self.answer = takes_s, answer
        self.ranges: list[list[tuple[int, int]]] = []

    async def report(self, ranges: npt.NDArray[Any]) -> bool:
        self.ranges.append([(int(it["addr"]), int(it["len"])) for it in ranges])
        await trio.sleep(self.takes_s)
        return self.answer


class Machine:
    """Two blocks of 16 pages are free: 2 and 6."""

    def __init__(self, host: Host) -> None:
        mechanism = PageReporting(order=4, capacity=2)
        zone = ZoneOf(pages=256, watermark_min=-64, watermark_low=-64)
        self.guest = Guest(zone, pageblock_order=4, mechanism=mechanism)
        self.guest.fill(4)
        self.host = host
        self.freed = LocalNotifier()
        self.clock = Clock(self.guest.mm.kernel)
        self.counts = np.zeros(1, HINTING)
        self.cycle = mechanism.start(self.guest.mm, 1)
        for block in (6, 2):
            self.free(block)

    def free(self, block: int) -> None:
        now_ns = round(self.clock.now_s() * 1e9)
        self.guest.mm.pages[block * 16]["stamp"] = now_ns >> 16
        give(self.guest.mm, 0, block * 16, 4, MOVABLE, 0, now_ns)

    async def run(self) -> None:
        await report_free_pages(
            self.guest.mm, self.cycle, self.host, self.freed, self.counts, self.clock
        )


async def test_what_is_reported_are_addresses_and_bytes(autojump_clock: MockClock) -> None:
    machine = Machine(Host())
    with trio.move_on_after(10):
        await machine.run()
    size = 16 * PAGE_SIZE
    assert machine.host.ranges == [[(6 * size, size), (2 * size, size)]]
    counts = machine.counts[0]
    assert [int(counts[it]) for it in ("reports", "blocks", "failed_reports")] == [1, 2, 0]
    assert counts["claimed_bytes"] == 2 * size
    assert machine.guest.reported() == {2 * 16, 6 * 16}


async def test_the_latency_is_from_the_last_free_to_the_acknowledgement(
    autojump_clock: MockClock,
) -> None:
    await trio.sleep(5)
    machine = Machine(Host(takes_s=0.5))
    machine.guest.mm.pages[6 * 16]["stamp"] = 0  # Not freed since boot: it has none.
    with trio.move_on_after(10):
        await machine.run()
    latencies = machine.counts[0]["reclaim_latency_ns"]
    assert latencies.sum() == 1
    assert percentile(latencies, 0.5) == pytest.approx(2.5e9, rel=0.04)


async def test_blocks_are_put_back_when_the_host_has_answered_even_if_cancelled(
    autojump_clock: MockClock,
) -> None:
    machine = Machine(Host(takes_s=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run)
        await trio.sleep(3)
        assert machine.guest.counts()[ISOLATED] == 32
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
            assert machine.guest.counts()[ISOLATED] == 32
    assert machine.guest.counts()[ISOLATED] == 0
    assert machine.guest.reported() == {2 * 16, 6 * 16}


async def test_a_device_that_was_reset_reported_nothing(autojump_clock: MockClock) -> None:
    machine = Machine(Host(answer=False))
    with trio.move_on_after(10):
        await machine.run()
    counts = machine.counts[0]
    assert [int(counts[it]) for it in ("reports", "blocks", "failed_reports")] == [0, 0, 1]
    assert machine.guest.reported() == set()
    assert machine.guest.counts()[ISOLATED] == 0


async def test_a_rung_doorbell_wakes_it(autojump_clock: MockClock) -> None:
    machine = Machine(Host())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run)
        await trio.sleep(60)
        assert len(machine.host.ranges) == 1
        wakeups = int(machine.counts[0]["wakeups"])
        machine.free(8)
        machine.freed.notify()
        await wait_all_tasks_blocked()
        assert machine.counts[0]["wakeups"] == wakeups + 1
        assert len(machine.host.ranges) == 1  # Due in two seconds.
        await trio.sleep(2.1)
        assert machine.host.ranges[1:] == [[(8 * 16 * PAGE_SIZE, 16 * PAGE_SIZE)]]
        nursery.cancel_scope.cancel()
