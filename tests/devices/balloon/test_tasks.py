"""Driver task and device task together, over each kind of notifier."""

from typing import Any

import numpy.typing as npt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import serve_queue
from devices.balloon.driver import BalloonDriver
from devices.balloon.driver_task import FreePageReporter
from devices.balloon.layout import F_PAGE_REPORTING
from devices.virtio.errors import DeviceError
from devices.virtio.notifier import EventfdNotifier, LocalNotifier
from tests.devices.rings import EVENT_IDX, INDIRECT, Rings, buffers


class Machine:
    """A driver and a device on one ring; what the device discards, and when it was told."""

    def __init__(self, notifier: type, features: int, size: int = 4) -> None:
        self.rings = Rings(size, features=features)
        self.kick, self.call = notifier(), notifier()
        self.driver = BalloonDriver({"reporting": self.rings.driver})
        self.reporter = FreePageReporter(self.driver, kick=self.kick, call=self.call)
        self.device = BalloonDevice(
            {"reporting": self.rings.device},
            self.rings.address_space,
            features=features | 1 << F_PAGE_REPORTING,
        )
        self.discard_s = 0.0
        self.discarded: list[list[Any]] = []
        self.acknowledged_before: list[int] = []  # Reports, when each discard had been done.

    async def discard(self, ranges: npt.NDArray[Any]) -> None:
        await trio.sleep(self.discard_s)
        self.acknowledged_before.append(self.driver.statistics().acknowledged)
        self.discarded.append(ranges.tolist())

    async def serve(self) -> None:
        await serve_queue(
            self.device, "reporting", kick=self.kick, call=self.call, discard=self.discard
        )

    def close(self) -> None:
        for notifier in (self.kick, self.call):
            if isinstance(notifier, EventfdNotifier):
                notifier.close()


@pytest.fixture(params=[LocalNotifier, EventfdNotifier])
def notifier(request: pytest.FixtureRequest) -> type:
    kind: type = request.param
    return kind


@pytest.fixture(params=[0, INDIRECT | EVENT_IDX])
async def machine(notifier: type, request: pytest.FixtureRequest) -> Any:
    made = Machine(notifier, request.param)
    yield made
    made.driver.validate()
    made.device.validate()
    made.close()


async def test_a_report_is_acknowledged_after_its_ranges_were_discarded(machine: Machine) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        for i in range(1, 10):
            assert await machine.reporter.report(buffers(1 + i % 4))
            assert len(machine.discarded) == i
        nursery.cancel_scope.cancel()
    assert machine.discarded[0] == [(0, 0, 4096), (0, 4096, 4096)]
    assert machine.driver.statistics().acknowledged == 9
    assert machine.acknowledged_before == list(range(9))


async def test_reports_of_several_tasks_take_turns(machine: Machine) -> None:
    ended = []

    async def report(count: int) -> None:
        ended.append(await machine.reporter.report(buffers(count)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        async with trio.open_nursery() as reporters:
            for count in (1, 2, 3, 4, 4, 4):
                reporters.start_soon(report, count)
        nursery.cancel_scope.cancel()
    assert ended == [True] * 6
    assert sorted(map(len, machine.discarded)) == [1, 2, 3, 4, 4, 4]


async def test_a_report_waits_for_a_slow_device(
    machine: Machine, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def serve_later() -> None:
            await trio.sleep(40)
            await machine.serve()

        nursery.start_soon(serve_later)
        assert await machine.reporter.report(buffers(4))
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began + 40


async def test_cancelling_does_not_end_a_shielded_report(
    machine: Machine, autojump_clock: MockClock
) -> None:
    ended = []

    async def report() -> None:
        with trio.CancelScope(shield=True):
            ended.append(await machine.reporter.report(buffers(2)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await report()
        nursery.cancel_scope.cancel()
    assert ended == [True]


async def test_a_reset_ends_a_shielded_report_and_all_later_ones(machine: Machine) -> None:
    ended = []

    async def report() -> None:
        with trio.CancelScope(shield=True):
            ended.append(await machine.reporter.report(buffers(2)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        nursery.start_soon(report)
        await wait_all_tasks_blocked()
        assert ended == []
        nursery.cancel_scope.cancel()
        machine.reporter.reset()
    assert ended == [False, False]
    assert not await machine.reporter.report(buffers(1))
    assert machine.driver.statistics().aborted == 1  # The others never reached the ring.

    machine.driver.restart()
    machine.device.reset()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        assert await machine.reporter.report(buffers(2))
        nursery.cancel_scope.cancel()


async def test_a_reset_and_restart_before_the_waiter_runs(machine: Machine) -> None:
    ended = []

    async def report() -> None:
        ended.append(await machine.reporter.report(buffers(2)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        await wait_all_tasks_blocked()
        machine.reporter.reset()
        machine.driver.restart()
    assert ended == [False]


async def test_what_a_cancelled_report_left_in_the_ring_is_waited_for(
    machine: Machine, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1) as scope:
        await machine.reporter.report(buffers(4))
    assert scope.cancelled_caught
    if not machine.rings.lend(4, None):  # Direct descriptors: the ring is full.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.serve)
            assert await machine.reporter.report(buffers(3))
            nursery.cancel_scope.cancel()
        assert [len(ranges) for ranges in machine.discarded] == [4, 3]
    else:
        machine.reporter.reset()


async def test_a_report_waits_for_a_slow_discard(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.discard_s = 3
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        assert await machine.reporter.report(buffers(4))
        assert trio.current_time() == began + 3
        nursery.cancel_scope.cancel()


async def test_a_discard_that_has_begun_is_acknowledged_even_if_cancelled(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.discard_s = 3
    machine.driver.add_report(buffers(2))
    machine.driver.publish_reports()
    with trio.move_on_after(1):
        await machine.serve()
    machine.driver.take_acknowledged()
    assert machine.driver.statistics().acknowledged == 1


async def test_a_reset_during_a_discard_forgets_its_request(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.discard_s = 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        machine.driver.add_report(buffers(2))
        machine.driver.publish_reports()
        machine.kick.notify()
        await trio.sleep(1)
        machine.reporter.reset()
        machine.device.reset()
        machine.driver.restart()
        assert await machine.reporter.report(buffers(3))
        nursery.cancel_scope.cancel()
    assert [len(ranges) for ranges in machine.discarded] == [2, 3]
    assert machine.driver.statistics().acknowledged == 1


async def test_a_breach_of_the_protocol_stops_the_device_and_nothing_else(
    machine: Machine,
) -> None:
    ended = []

    async def report() -> None:
        ended.append(await machine.reporter.report(buffers(2)))

    async with trio.open_nursery() as nursery:
        machine.rings.offer(head=99)
        nursery.start_soon(machine.serve)
        await wait_all_tasks_blocked()
        assert machine.device.broken == (
            "queue reporting: the head of a chain is outside the descriptors"
        )
        machine.driver.reset()
        machine.driver.restart()
        nursery.start_soon(report)
        await wait_all_tasks_blocked()
        assert ended == []
        assert machine.discarded == []
        machine.reporter.reset()
    assert ended == [False]
    await machine.serve()  # It does not serve until it is reset: returns at once.


async def test_a_device_that_lies_ends_the_report_with_an_error(notifier: type) -> None:
    machine = Machine(notifier, 0)

    async def report() -> None:
        with pytest.raises(DeviceError, match="was not lent"):
            await machine.reporter.report(buffers(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        await wait_all_tasks_blocked()
        machine.rings.views.used_ring[0] = (3, 0)
        machine.rings.views.used[1]["word"] = 1
        machine.call.notify()
    machine.close()


async def test_spurious_notifications_are_harmless(machine: Machine) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        for _ in range(3):
            machine.kick.notify()
            machine.call.notify()
            await wait_all_tasks_blocked()
            assert await machine.reporter.report(buffers(1))
        nursery.cancel_scope.cancel()


async def test_a_request_of_which_nothing_is_left_is_completed(machine: Machine) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.serve)
        assert await machine.reporter.report(buffers(2, addr=0))
        nursery.cancel_scope.cancel()
    assert machine.discarded == []
    assert machine.device.statistics("reporting").outside == 2


async def test_a_discard_that_fails_acknowledges_nothing(machine: Machine) -> None:
    async def fail(ranges: npt.NDArray[Any]) -> None:
        raise OSError("no such memory")

    machine.driver.add_report(buffers(1))
    machine.driver.publish_reports()
    with pytest.raises(OSError, match="no such memory"):
        await serve_queue(
            machine.device, "reporting", kick=machine.kick, call=machine.call, discard=fail
        )
    machine.driver.take_acknowledged()
    assert machine.driver.statistics().in_flight == 1


async def test_a_busy_queue_leaves_other_tasks_their_turn(machine: Machine) -> None:
    machine.driver.add_report(buffers(1))
    machine.driver.add_report(buffers(1))
    machine.driver.publish_reports()
    with trio.CancelScope() as scope:

        async def discard(ranges: npt.NDArray[Any]) -> None:
            scope.cancel()  # Seen at the checkpoint between two rounds of one request each.

        await serve_queue(
            machine.device,
            "reporting",
            kick=machine.kick,
            call=machine.call,
            discard=discard,
            requests_max=1,
        )
    machine.driver.take_acknowledged()
    seen = machine.driver.statistics()
    assert (seen.acknowledged, seen.in_flight) == (1, 1)
