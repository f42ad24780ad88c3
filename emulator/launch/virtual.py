"""Virtual time: vCPUs, guest kernel and host as tasks of one trio run under a virtual clock.

The clock stands still while anything can run and then jumps to the next deadline, so that an hour
of waiting takes seconds; one seed decides everything, also the order in which trio runs tasks that
are ready at the same instant.  The code that runs is the code of the processes.
"""

import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio
import trio.testing

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.notifier import LocalNotifier
from emulator.errors import RunFailed
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.boot import boot
from emulator.guest.clock import Clock
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.free_page_task import FreePageHinter
from emulator.guest.kernel_task import GuestKernel, Standing
from emulator.guest.mm.views import GuestMemory
from emulator.guest.vcpu import Vcpu
from emulator.guest.vcpu_task import run_vcpu
from emulator.host.cost import HostCosts
from emulator.host.discard import Discarder
from emulator.host.task import serve_guest
from emulator.launch.balloon import manage_machine
from emulator.launch.failure import first_cause
from emulator.launch.migration import migration_task
from emulator.machine import Machine, Wires
from emulator.measure import RunTimes, summarize
from emulator.observer import Observer
from emulator.sampler import Sampler
from emulator.summary import Summary

_STOP_S_MAX: Final = 60.0  # In virtual time.


def run_virtual(machine: Machine, observer: Observer) -> Summary:
    """Run a machine in virtual time to its end.  RunFailed where an invariant does not hold."""
    began = time.monotonic()
    _make_schedule_repeatable(machine.scenario.run.seed)
    clock = trio.testing.MockClock(autojump_threshold=0)
    try:
        ended_s, sampler, standing, costs = trio.run(
            _run,
            machine,
            observer,
            clock=clock,
            restrict_keyboard_interrupt_to_checkpoints=True,  # Never in the middle of our code.
        )
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    times = RunTimes(
        began_s=0.0,
        ended_s=ended_s,
        wall_s=time.monotonic() - began,
        virtual=True,
        host_cpu_s=None if costs is None else costs.host.cpu_s,
        guest_kernel_cpu_s=None if costs is None else costs.guest.task_cpu_s,
        vcpus_paid_s=None if costs is None else costs.guest.paid_s(),
    )
    return summarize(machine, sampler, standing, times)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What both sides of a run pay."""

    guest: GuestCosts
    host: HostCosts


def _make_schedule_repeatable(seed: int) -> None:
    """trio shuffles tasks that are ready together; let the seed decide.  trio has no public way:
    this is what its own hook for Hypothesis does (trio._core._run)."""
    from trio._core import _run as trio_run

    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    generator: random.Random = trio_run._r
    generator.seed(seed)


async def _run(
    machine: Machine, observer: Observer
) -> tuple[float, Sampler, Standing, _Costs | None]:
    scenario = machine.scenario
    mm = machine.memory()
    boot(
        mm,
        machine.ram.view(),
        scenario.guest.all_zones,
        thp=scenario.guest.thp,
        pageblock_order=scenario.guest.pageblock_order,
        virtual=True,
    )
    clock = Clock(mm.kernel)
    wires = {name: LocalNotifier() for name in machine.wire_names()}
    prices, host = scenario.cost, machine.host[0]
    host_costs = HostCosts(machine.host, prices, scenario.host.discard_bytes_per_s)
    guest_costs = None
    if prices is not None:
        guest_costs = GuestCosts(mm, prices, lambda: int(host["discards"]))
    hinting = machine.guest["hinting"]
    balloon = machine.balloon_task(mm, wires, guest_costs)
    guest_kernel = GuestKernel(mm, machine.mechanism, hinting, clock, balloon, guest_costs)
    sampler = Sampler(machine.guest, machine.host, machine.ram)
    discarder = Discarder.of_ram(machine.ram, machine.host)
    try:
        async with trio.open_nursery() as outer:
            outer.start_soon(partial(_sample, sampler, scenario.run.sample_s, observer))
            reporter = machine.reporter(wires)
            stats = None if balloon is None else machine.stats_driver()
            _start_host(outer, machine, discarder, wires, (reporter, balloon), host_costs)
            # The hinting task ends before the host does: a report under way needs the host.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest_kernel.run_hinting, reporter, wires["freed"])
                if stats is not None:
                    shortages = machine.guest["shortages"]
                    nursery.start_soon(guest_kernel.run_balloon, stats, shortages, wires)
                try:
                    await _run_vcpus(machine, mm, clock, wires, sampler, guest_costs)
                finally:
                    outer.start_soon(_give_up_on_host)
                    nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        ended_s = trio.current_time()
        observer.sample(sampler.sample(ended_s))
        discarder.settle()
    finally:
        discarder.close()
    standing = guest_kernel.standing()
    if standing.unsound:
        raise RunFailed(f"the guest's memory is not sound: {standing.unsound}")
    costs = None if guest_costs is None else _Costs(guest_costs, host_costs)
    return ended_s, sampler, standing, costs


def _start_host(
    nursery: trio.Nursery,
    machine: Machine,
    discarder: Discarder,
    wires: Wires,
    drivers: tuple[FreePageReporter | FreePageHinter, BalloonTask | None],
    costs: HostCosts,
) -> None:
    """Start the host; when it ends, the guest's drivers know."""
    device = machine.device(wires)
    migration = migration_task(machine, device, discarder)
    if migration is not None:
        nursery.start_soon(migration.run)

    async def virtual_cost(blocks: int) -> None:
        await trio.sleep(costs.report_s(blocks))

    async def host() -> None:
        try:
            await serve_guest(
                device,
                discarder,
                machine.host,
                wires=wires,
                virtual_cost=virtual_cost,
                migration=migration,
            )
        finally:
            for driver in drivers:
                if driver is not None:
                    driver.reset()  # Whatever ended the host: nobody acknowledges any more.

    nursery.start_soon(host)
    nursery.start_soon(manage_machine, machine, device, wires)


async def _give_up_on_host() -> None:
    """A report that is never acknowledged would never end."""
    await trio.sleep(_STOP_S_MAX)
    raise RunFailed(f"the host did not acknowledge a report within {_STOP_S_MAX:.0f} s")


async def _run_vcpus(
    machine: Machine,
    mm: GuestMemory,
    clock: Clock,
    wires: Wires,
    sampler: Sampler,
    costs: GuestCosts | None,
) -> None:
    arrays: dict[str, Any] = machine.workload_arrays()
    run = machine.scenario.run
    limit_s = float("inf") if run.time_limit_s is None else run.time_limit_s
    with trio.move_on_after(limit_s) as limit:
        async with trio.open_nursery() as nursery:
            for index in range(machine.scenario.guest.vcpus):
                vcpu = Vcpu(
                    index,
                    mm,
                    machine.ram.view(),
                    machine.guest["phases"],
                    clock,
                    wires["freed"],
                    seed=run.seed,
                    on_phase=lambda: sampler.note(trio.current_time()),
                    out_of_memory=machine.out_of_memory(index, wires),
                    costs=costs,
                )
                nursery.start_soon(run_vcpu, vcpu, partial(_work, machine, arrays))
    if limit.cancelled_caught:
        raise RunFailed(f"the workload took longer than run.time_limit, {limit_s} s")


async def _work(machine: Machine, arrays: dict[str, Any], vcpu: Vcpu) -> None:
    await machine.workload.run(vcpu, arrays)


async def _sample(sampler: Sampler, every_s: float, observer: Observer) -> None:
    count = 0
    while True:
        observer.sample(sampler.sample(trio.current_time()))
        count += 1
        await trio.sleep_until(count * every_s)
