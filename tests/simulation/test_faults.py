"""Faults: the device stops in the middle of a report, the hinting task is cancelled, the ring lies.

Whatever happens, no page is lost and none is discarded while it is in use.
"""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import Phase, given, settings

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.notifier import LocalNotifier
from emulator.config.scenario import Scenario
from emulator.errors import RunFailed
from emulator.guest.boot import boot
from emulator.guest.clock import Clock
from emulator.guest.kernel_task import GuestKernel
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.guest.vcpu_task import run_vcpu
from emulator.host.discard import Discarder
from emulator.host.task import serve_guest
from emulator.machine import Machine
from emulator.summary import SeriesRow
from tests.support.runs import simulate, small

TIMES = st.lists(st.floats(0.001, 6.0), min_size=1, max_size=8)


class Rig:
    """A machine whose hinting task and host a test may stop and start."""

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self.machine = machine
        self.mm = machine.memory()
        guest = machine.scenario.guest
        order = guest.pageblock_order
        ram = machine.ram.view()
        boot(self.mm, ram, guest.all_zones, thp=guest.thp, pageblock_order=order, virtual=True)
        self.clock = Clock(self.mm.kernel)
        self.kernel = GuestKernel(self.mm, machine.mechanism, machine.guest["hinting"], self.clock)
        self.discarder = Discarder.of_ram(machine.ram, machine.host)
        self.wires = {name: LocalNotifier() for name in machine.wire_names()}
        self.freed = self.wires["freed"]
        reporter = machine.reporter(self.wires)
        assert isinstance(reporter, FreePageReporter)
        self.reporter = reporter
        self._nursery = nursery
        self._host = self._hinting = trio.CancelScope()

    def start_host(self) -> None:
        """A new device on the ring; discards take a while, so that reports are in flight."""
        self._host = trio.CancelScope()

        async def discard_slowly(returned_bytes: int) -> None:
            await trio.sleep(0.05 + returned_bytes / (1 << 30))

        async def serve() -> None:
            with self._host:
                await serve_guest(
                    self.machine.device(self.wires),
                    self.discarder,
                    self.machine.host,
                    wires=self.wires,
                    virtual_cost=discard_slowly,
                )

        self._nursery.start_soon(serve)

    def start_hinting(self) -> None:
        """The hinting task."""
        self._hinting = trio.CancelScope()

        async def hint() -> None:
            with self._hinting:
                await self.kernel.run_hinting(self.reporter, self.freed)

        self._nursery.start_soon(hint)

    async def restart_device(self) -> None:
        """The device stops and begins anew: what is in flight ends unacknowledged."""
        self._host.cancel()
        await trio.sleep(1)  # It completes what it has taken.
        self.reporter.reset()
        await trio.testing.wait_all_tasks_blocked()
        self.reporter.driver.restart()
        self.start_host()

    async def restart_hinting(self) -> None:
        """The hinting task is cancelled and begins anew; it first waits for its report."""
        self._hinting.cancel()
        await trio.sleep(1)
        self.start_hinting()

    async def work(self) -> None:
        """The workload, on every vCPU."""
        async with trio.open_nursery() as nursery:
            for index in range(self.machine.scenario.guest.vcpus):
                vcpu = Vcpu(
                    index,
                    self.mm,
                    self.machine.ram.view(),
                    self.machine.guest["phases"],
                    self.clock,
                    self.freed,
                    seed=1,
                    on_phase=lambda: None,
                )
                nursery.start_soon(run_vcpu, vcpu, self._workload)

    async def _workload(self, vcpu: Vcpu) -> None:
        await self.machine.workload.run(vcpu, self.machine.workload_arrays())

    def assert_sound(self) -> None:
        """No page lost, none discarded in use, no report forgotten."""
        standing = self.kernel.standing()
        assert standing.unsound == ""
        assert standing.isolated == standing.allocated == 0
        assert int(self.mm.actors["violations"].sum()) == 0
        assert int(self.mm.actors["pages_checked"].sum()) > 0
        self.reporter.driver.validate()
        seen = self.reporter.driver.statistics()
        counts = self.machine.guest["hinting"][0]
        assert seen.in_flight == 0
        assert seen.reports == seen.acknowledged + seen.aborted
        assert counts["reports"] == seen.acknowledged
        assert counts["failed_reports"] >= seen.aborted  # Some were refused before they began.


def run_with_faults(
    scenario: Scenario, times_s: list[float], fault: Callable[[Rig], Any]
) -> tuple[int, int]:
    """Run it with a fault at each of these times; reports acknowledged, and aborted."""

    async def main(machine: Machine) -> tuple[int, int]:
        async with trio.open_nursery() as nursery:
            rig = Rig(machine, nursery)
            rig.start_host()
            rig.start_hinting()
            async with trio.open_nursery() as running:
                running.start_soon(rig.work)
                for at_s in sorted(times_s):
                    await trio.sleep_until(at_s)
                    await fault(rig)
            await trio.sleep(5)  # A last pass; then the hinting task first, as a launcher does.
            rig._hinting.cancel()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        rig.assert_sound()
        rig.discarder.close()
        seen = rig.reporter.driver.statistics()
        return seen.acknowledged, seen.aborted

    clock = trio.testing.MockClock(autojump_threshold=0)
    with Machine.create(scenario, shared=False, say=lambda text: None) as machine:
        return trio.run(main, machine, clock=clock)


FAST = 'mechanism={name="page_reporting",order=4,delay="10ms",capacity=8}'


@given(random=st.random_module(), times_s=TIMES, name=st.sampled_from(["memhog", "churn"]))
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
def test_a_device_that_restarts_loses_no_page(random: Any, times_s: list[float], name: str) -> None:
    run_with_faults(small(name, FAST), times_s, Rig.restart_device)


@given(random=st.random_module(), times_s=TIMES, name=st.sampled_from(["memhog", "churn"]))
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
def test_a_hinting_task_that_restarts_loses_no_page(
    random: Any, times_s: list[float], name: str
) -> None:
    _, aborted = run_with_faults(small(name, FAST), times_s, Rig.restart_hinting)
    assert aborted == 0


def test_a_device_that_stops_during_a_report_aborts_it() -> None:
    acknowledged, aborted = run_with_faults(
        small("memhog", FAST), [0.02 * n for n in range(1, 40)], Rig.restart_device
    )
    assert acknowledged > 0 and aborted > 0


def test_the_ring_is_written_by_someone_else() -> None:
    """The guest writes nonsense into the ring: its device stops, and the run ends at once."""

    def scribble(machine: Machine, row: SeriesRow) -> None:
        if row.time_s >= 1:
            machine.regions["ring"].arrays["queue.reporting"][:] = 0xFF

    with pytest.raises(RunFailed, match=r"broke .* balloon device: "):
        simulate(small("memhog", FAST), scribble)


@given(random=st.random_module(), seed=st.integers(0, 2**32 - 1), at_s=st.floats(0, 4))
@settings(max_examples=20, deadline=None, phases=[Phase.generate])
def test_any_bytes_in_the_ring_are_survived(random: Any, seed: int, at_s: float) -> None:
    """Refused, or taken for a report; never outside of the guest's memory, never without an end.

    What the device is made to discard may well be in use: the guest asked for it.
    """
    generator = np.random.default_rng(seed)

    def scribble(machine: Machine, row: SeriesRow) -> None:
        if row.time_s >= at_s:
            queue = machine.regions["ring"].arrays["queue.reporting"]
            where = generator.integers(0, len(queue), 64)
            queue[where] = generator.integers(0, 256, 64)

    try:
        run = simulate(small("memhog", FAST, 'run.time_limit="60s"'), scribble)
    except RunFailed as error:
        refused = ("balloon device", "time_limit", "did not acknowledge a report")
        assert any(words in str(error) for words in refused)
    else:
        assert (run.summary.host.resident_bytes_end or 0) % PAGE_SIZE == 0


def test_a_report_that_a_run_ends_in_is_completed() -> None:
    """The workload ends within a discard: the host outlives the hinting task."""
    slow = 'host={discard="1MiB"}'
    settings = ('workload.idle="50ms"', "workload.iterations=1", slow)
    run = simulate(small("memhog", FAST, *settings))
    assert run.summary.hinting.reports == run.host[0]["requests"] > 0
