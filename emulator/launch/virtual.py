"""Virtual time: vCPUs, guest kernels and host as tasks of one trio run under a virtual clock.

The clock stands still while anything can run and then jumps to the next deadline, so that an hour
of waiting takes seconds; one seed decides everything, also the order in which trio runs tasks that
are ready at the same instant.  The code that runs is the code of the processes.
"""

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import trio

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.notifier import LocalNotifier
from emulator.config.scenario import Scenario
from emulator.errors import RunFailed
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.boot import boot
from emulator.guest.clock import Clock
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.free_page_task import FreePageHinter
from emulator.guest.kernel_task import GuestKernel, Standing
from emulator.guest.vcpu import Vcpu
from emulator.guest.vcpu_task import run_vcpu
from emulator.guest.virtual_time import VirtualTime, sleep
from emulator.guests import Guests, name_of
from emulator.guests_sampler import GuestsSampler
from emulator.guests_summary import summarize_guests
from emulator.host.cost import HostCosts
from emulator.host.discard import Discarder
from emulator.host.task import serve_guest
from emulator.launch.balloon import ask_machine, manage_machine
from emulator.launch.failure import first_cause
from emulator.launch.migration import migration_task
from emulator.launch.page_cache import boot_files, file_io, page_cache_task
from emulator.launch.swap import start_swap
from emulator.machine import Machine, Wires
from emulator.measure import RunTimes
from emulator.observer import Observer
from emulator.sampler import Sampler
from emulator.summary import Summary

_STOP_S_MAX: Final = 60.0  # In virtual time.


def run_virtual(
    guests: Guests, observer: Observer, sampler: GuestsSampler | None = None
) -> Summary:
    """Run guests in virtual time to their end.  RunFailed where an invariant does not hold.

    sampler: keeps the samples of each guest; without it they are kept as long as the run lasts.
    """
    began = time.monotonic()
    scenario = guests[0].scenario
    _make_schedule_repeatable(scenario.run.seed)
    sampler = sampler or GuestsSampler(guests)
    gc.freeze()  # All code is loaded: it need not be gone through again and again.
    try:
        ended_s, standings, paid = trio.run(
            _run,
            guests,
            sampler,
            observer,
            clock=VirtualTime(),
            restrict_keyboard_interrupt_to_checkpoints=True,  # Never in the middle of our code.
        )
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    finally:
        gc.unfreeze()
    each = [
        RunTimes(
            began_s=0.0,
            ended_s=ended_s,
            wall_s=time.monotonic() - began,
            virtual=True,
            host_cpu_s=None if costs is None else costs.host.cpu_s,
            guest_kernel_cpu_s=None if costs is None else costs.guest.task_cpu_s,
            vcpus_paid_s=None if costs is None else costs.guest.paid_s(),
        )
        for costs in paid
    ]
    return summarize_guests(guests, sampler, standings, each)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What both sides of a guest pay."""

    guest: GuestCosts
    host: HostCosts


def _make_schedule_repeatable(seed: int) -> None:
    """trio shuffles tasks that are ready together; let the seed decide.  trio has no public way:
    this is what its own hook for Hypothesis does (trio._core._run)."""
    from trio._core import _run as trio_run

    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    generator: random.Random = trio_run._r
    generator.seed(seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guest:
    """One guest that is up, and the host's half of it."""

    machine: Machine
    clock: Clock
    wires: Wires
    balloon: BalloonTask | None
    kernel: GuestKernel
    sampler: Sampler
    discarder: Discarder
    host_costs: HostCosts
    guest_costs: GuestCosts | None

    @classmethod
    def boot(cls, machine: Machine, sampler: Sampler) -> Self:
        """Bring it up."""
        mm, scenario = machine.memory(), machine.scenario
        guest, prices = scenario.guest, scenario.cost
        boot(
            mm,
            machine.ram.view(),
            guest.all_zones,
            thp=guest.thp,
            pageblock_order=guest.pageblock_order,
            virtual=True,
        )
        boot_files(machine, mm)
        clock = Clock(mm.kernel)
        wires = {name: LocalNotifier() for name in machine.wire_names()}
        costs = None
        if prices is not None:
            costs = GuestCosts(mm, prices, machine.host["discards"].item)
        balloon = machine.balloon_task(mm, wires, costs)
        hinting = machine.guest["hinting"]
        return cls(
            machine=machine,
            clock=clock,
            wires=wires,
            balloon=balloon,
            kernel=GuestKernel(mm, machine.mechanism, hinting, clock, balloon, costs),
            sampler=sampler,
            discarder=Discarder.of_ram(machine.ram, machine.host, join=scenario.host.join),
            host_costs=HostCosts(machine.host, prices, scenario.host.discard_bytes_per_s),
            guest_costs=costs,
        )

    def start_kernel(self, nursery: trio.Nursery, host: trio.Nursery, machines: Guests) -> None:
        """Start what its kernel does; its half of the host in `host`."""
        machine, wires = self.machine, self.wires
        reporter = machine.reporter(wires)
        stats = None if self.balloon is None else machine.stats_driver()
        drivers = (reporter, self.balloon)
        _start_host(host, machine, self.discarder, wires, drivers, self.host_costs, machines)
        nursery.start_soon(self.kernel.run_hinting, reporter, wires["freed"])
        page_cache = page_cache_task(machine, self.kernel.mm, wires, self.clock)
        if page_cache is not None:
            nursery.start_soon(page_cache.run)
        if stats is not None:
            nursery.start_soon(self.kernel.run_balloon, stats, machine.guest["shortages"], wires)

    def start_vcpus(self, nursery: trio.Nursery, start_s: float) -> None:
        """Start its vCPUs; their workload begins at `start_s`."""
        machine, arrays = self.machine, self.machine.workload_arrays()
        work = partial(_work, machine, arrays, start_s)
        for index in range(machine.scenario.guest.vcpus):
            vcpu = Vcpu(
                index,
                self.kernel.mm,
                machine.ram.view(),
                machine.guest["phases"],
                self.clock,
                self.wires["freed"],
                seed=machine.scenario.run.seed,
                on_phase=lambda: self.sampler.note(trio.current_time()),
                out_of_memory=machine.out_of_memory(index, self.wires),
                costs=self.guest_costs,
                files=file_io(machine, self.kernel.mm, index, self.wires, self.clock),
                swap=machine.swap_in(index, self.clock, self.wires),
            )
            nursery.start_soon(run_vcpu, vcpu, work)


async def _run(
    machines: Guests, sampler: GuestsSampler, observer: Observer
) -> tuple[float, list[Standing], list[_Costs | None]]:
    scenario = machines[0].scenario
    guests = [_Guest.boot(*both) for both in zip(machines, sampler.guests, strict=True)]
    try:
        async with trio.open_nursery() as outer:
            outer.start_soon(partial(_sample, sampler, scenario.run.sample_s, observer))
            # The hinting tasks end before the host does: a report under way needs the host.
            async with trio.open_nursery() as nursery:
                start_swap(outer, [(guest.machine, guest.wires) for guest in guests])
                for guest in guests:
                    guest.start_kernel(nursery, outer, machines)
                try:
                    await _run_vcpus(guests, scenario)
                finally:
                    outer.start_soon(_give_up_on_host)
                    nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        ended_s = trio.current_time()
        observer.sample(sampler.sample(ended_s))
        for guest in guests:
            guest.discarder.settle()
    finally:
        for guest in guests:
            guest.discarder.close()
    standings = [guest.kernel.standing() for guest in guests]
    for index, standing in enumerate(standings):
        if standing.unsound:
            name = name_of(machines, index)
            raise RunFailed(f"{name}the guest's memory is not sound: {standing.unsound}")
    paid = [
        None if guest.guest_costs is None else _Costs(guest.guest_costs, guest.host_costs)
        for guest in guests
    ]
    return ended_s, standings, paid


async def _run_vcpus(guests: Sequence[_Guest], scenario: Scenario) -> None:
    run = scenario.run
    limit_s = float("inf") if run.time_limit_s is None else run.time_limit_s
    with trio.move_on_after(limit_s) as limit:
        async with trio.open_nursery() as nursery:
            for index, guest in enumerate(guests):
                guest.start_vcpus(nursery, scenario.guests.start_s(index))
    if limit.cancelled_caught:
        raise RunFailed(f"the workload took longer than run.time_limit, {limit_s} s")


async def _work(machine: Machine, arrays: dict[str, Any], start_s: float, vcpu: Vcpu) -> None:
    if start_s > 0:
        await vcpu.sleep(start_s)
    await machine.workload.run(vcpu, arrays)


def _start_host(
    nursery: trio.Nursery,
    machine: Machine,
    discarder: Discarder,
    wires: Wires,
    drivers: tuple[FreePageReporter | FreePageHinter, BalloonTask | None],
    costs: HostCosts,
    machines: Guests,
) -> None:
    """Start the host; when it ends, the guest's drivers know.  `machines`: all its guests."""
    device = machine.device(wires)
    migration = migration_task(machine, device, discarder.discard)
    if migration is not None:
        nursery.start_soon(migration.run)

    async def virtual_cost(blocks: int) -> None:
        await sleep(costs.report_s(blocks))

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
    nursery.start_soon(manage_machine, machine, device, machines)
    nursery.start_soon(ask_machine, machine, device, wires)


async def _give_up_on_host() -> None:
    """A report that is never acknowledged would never end."""
    await trio.sleep(_STOP_S_MAX)
    raise RunFailed(f"the host did not acknowledge a report within {_STOP_S_MAX:.0f} s")


async def _sample(sampler: GuestsSampler, every_s: float, observer: Observer) -> None:
    count = 0
    while True:
        observer.sample(sampler.sample(trio.current_time()))
        count += 1
        await trio.sleep_until(count * every_s)
