"""The main functions of the processes: vCPU, guest kernel, host.

Each attaches to its parts of the machine, says that it is ready, waits for the signal to go, works,
and says how it ended, or what failed.  Each ends by itself when the supervisor is gone, whatever
the reason; signals to the whole process group are the supervisor's business.
"""

import ctypes
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Final, NamedTuple

import trio

from devices.balloon.driver_task import FreePageReporter
from devices.balloon.stats_driver import StatsDriver
from devices.virtio.notifier import EventfdNotifier
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.boot import boot
from emulator.guest.clock import Clock
from emulator.guest.hinting.free_page_task import FreePageHinter
from emulator.guest.kernel_task import GuestKernel
from emulator.guest.vcpu import Vcpu
from emulator.guest.vcpu_task import run_vcpu
from emulator.host.discard import Discarder
from emulator.host.rehearsal import rehearse
from emulator.host.task import serve_guest
from emulator.launch.balloon import ask_machine, manage_machine
from emulator.launch.channel import Channel
from emulator.launch.child import Passed
from emulator.launch.failure import describe
from emulator.launch.fork_server_process import SUPERVISOR_GONE
from emulator.launch.migration import migration_task
from emulator.launch.page_cache import boot_files, file_io, page_cache_task
from emulator.launch.swap import start_swap
from emulator.launch.vhost_user_task import MachineService, attached_machine
from emulator.machine import Handle, Machine, Wires

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

Work = Callable[[Machine, Channel], Awaitable[None]]
# Gives the device the queues of a guest that has booted, for as long as that runs.
Attach = Callable[[Machine, Wires, BalloonTask | None], AbstractAsyncContextManager[None]]
PassedWires = Mapping[str, Passed]


def vcpu_main(
    end: socket.socket, handle: Handle, ram: Passed, wires: PassedWires, index: int
) -> None:
    """One vCPU."""
    work = partial(_vcpu, index, _notifiers(wires))
    child_main(f"vcpu {index}", end, handle, ram, ("guest", "vmm"), work)


def guest_kernel_main(end: socket.socket, handle: Handle, ram: Passed, wires: PassedWires) -> None:
    """The guest's kernel."""
    work = partial(_guest_kernel, _sharing, _notifiers(wires))
    child_main("guest kernel", end, handle, ram, ("guest", "ring"), work)


class Served(NamedTuple):
    """One guest of the host."""

    handle: Handle
    ram: Passed
    wires: PassedWires


def host_main(end: socket.socket, guests: Sequence[Served]) -> None:
    """The host."""
    _become("host")
    trio.run(_live_host, end, guests)


def vhost_user_guest_kernel_main(
    end: socket.socket, handle: Handle, ram: Passed, wires: PassedWires, front_end: Passed
) -> None:
    """The guest's kernel, as a vhost-user front-end."""
    attach = partial(attached_machine, socket.socket(fileno=front_end.detach()))
    work = partial(_guest_kernel, attach, _notifiers(wires))
    child_main("guest kernel", end, handle, ram, ("guest", "ring"), work)


def vhost_user_host_main(
    end: socket.socket, handle: Handle, ram: Passed, wires: PassedWires, back_end: Passed
) -> None:
    """The host, as a vhost-user back-end: what it knows of the guest's memory comes by message."""
    work = partial(_vhost_user_host, socket.socket(fileno=back_end.detach()))
    child_main("host", end, handle, ram, ("host", "vmm"), work)


def _notifiers(wires: PassedWires) -> Wires:
    return {name: EventfdNotifier(passed.detach()) for name, passed in wires.items()}


def child_main(
    name: str, end: socket.socket, handle: Handle, ram: Passed, parts: tuple[str, ...], work: Work
) -> None:
    """Attach to these parts of the machine and do `work`; the end of the channel ends it, too."""
    _become(name)
    trio.run(_live, end, handle, ram.detach(), parts, work)


def _become(name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The supervisor says when it is over.
    signal.signal(SUPERVISOR_GONE, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # With the fork server, which ends with it.
    libc.prctl(_PR_SET_NAME, f"emu {name}".encode()[:15])


async def _live(
    end: socket.socket, handle: Handle, ram_fd: int, parts: tuple[str, ...], work: Work
) -> None:
    async with _channel(end) as channel:
        with Machine.attach(handle, ram_fd, *parts) as machine:
            await work(machine, channel)


async def _live_host(end: socket.socket, guests: Sequence[Served]) -> None:
    async with _channel(end) as channel:
        with ExitStack() as stack:
            served = []
            for handle, ram, wires in guests:
                machine = Machine.attach(handle, ram.detach(), "ring", "host", "vmm")
                served.append((stack.enter_context(machine), _notifiers(wires)))
            await _host(served, channel)


@asynccontextmanager
async def _channel(end: socket.socket) -> AsyncIterator[Channel]:
    """The channel of a process that tells by it what failed."""
    channel = Channel(end)
    try:
        yield channel
    except Exception as error:
        await channel.send(kind="failed", **describe(error))
    await channel.aclose()


async def ready_and_go(channel: Channel) -> bool:
    """Whether the supervisor gave the signal."""
    await channel.send(kind="ready")
    message = await channel.receive()
    return message is not None and message["kind"] == "go"


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _vcpu(index: int, wires: Wires, machine: Machine, channel: Channel) -> None:
    if not await ready_and_go(channel):
        return
    mm = machine.memory()
    arrays = machine.workload_arrays()
    clock = Clock(mm.kernel)
    async with trio.open_nursery() as nursery:
        phase_began = trio.Event()

        async def end_with_supervisor() -> None:
            while await channel.receive() is not None:
                pass
            nursery.cancel_scope.cancel()

        async def tell_phases() -> None:
            nonlocal phase_began
            while True:
                await phase_began.wait()
                phase_began = trio.Event()
                await channel.send(kind="phase")

        vcpu = Vcpu(
            index,
            mm,
            machine.ram.view(),
            machine.guest["phases"],
            clock,
            wires["freed"],
            seed=machine.scenario.run.seed,
            on_phase=lambda: phase_began.set(),
            out_of_memory=machine.out_of_memory(index, wires),
            files=file_io(machine, mm, index, wires, clock),
            swap=machine.swap_in(index, clock, wires),
        )
        nursery.start_soon(end_with_supervisor)
        nursery.start_soon(tell_phases)
        await run_vcpu(vcpu, lambda it: machine.workload.run(it, arrays))
        nursery.cancel_scope.cancel()
    await channel.send(kind="done")


@asynccontextmanager
async def _sharing(
    machine: Machine, wires: Wires, balloon: BalloonTask | None
) -> AsyncIterator[None]:
    """The host has the queues already."""
    yield


async def _guest_kernel(attach: Attach, wires: Wires, machine: Machine, channel: Channel) -> None:
    mm, guest = machine.memory(), machine.scenario.guest
    boot(
        mm,
        machine.ram.view(),
        guest.all_zones,
        thp=guest.thp,
        pageblock_order=guest.pageblock_order,
        virtual=False,
        deferring=True,
    )
    boot_files(machine, mm)
    reporter = machine.reporter(wires)
    balloon = machine.balloon_task(mm, wires)
    stats = None if balloon is None else machine.stats_driver()
    async with attach(machine, wires, balloon):
        await _hint_and_balloon(reporter, balloon, stats, wires, machine, channel)


async def _hint_and_balloon(
    reporter: FreePageReporter | FreePageHinter,
    balloon: BalloonTask | None,
    stats: StatsDriver | None,
    wires: Wires,
    machine: Machine,
    channel: Channel,
) -> None:
    mm = machine.memory()
    if not await ready_and_go(channel):
        return
    began_cpu_s = _cpu_s()
    clock = Clock(mm.kernel)
    page_cache = page_cache_task(machine, mm, wires, clock)
    kernel = GuestKernel(mm, machine.mechanism, machine.guest["hinting"], clock, balloon)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.run_hinting, reporter, wires["freed"])
        if stats is not None:
            nursery.start_soon(kernel.run_balloon, stats, machine.guest["shortages"], wires)
        if page_cache is not None:
            nursery.start_soon(page_cache.run)
        stopped = await channel.receive() is not None
        if not stopped:
            # The host is as dead as the supervisor: nobody would acknowledge.
            reporter.reset()
            if balloon is not None:
                balloon.reset()
        nursery.cancel_scope.cancel()
    if stopped:
        cpu_s = _cpu_s() - began_cpu_s - kernel.boot_cpu_s
        await channel.send(kind="done", cpu_s=cpu_s, standing=asdict(kernel.standing()))


async def _host(guests: Sequence[tuple[Machine, Wires]], channel: Channel) -> None:
    discarders = [
        Discarder.of_ram(machine.ram, machine.host, join=machine.scenario.host.join)
        for machine, _ in guests
    ]
    devices = [machine.device(wires) for machine, wires in guests]
    machines = [machine for machine, _ in guests]
    if not await ready_and_go(channel):
        return
    began_cpu_s = _cpu_s()
    async with trio.open_nursery() as nursery:
        start_swap(nursery, guests)
        for (machine, wires), device, discarder in zip(guests, devices, discarders, strict=True):
            migration = migration_task(machine, device, discarder.discard)
            serve = partial(serve_guest, device, discarder, machine.host, migration=migration)
            nursery.start_soon(partial(serve, wires=wires))
            nursery.start_soon(manage_machine, machine, device, machines)
            nursery.start_soon(ask_machine, machine, device, wires)
            if migration is not None:
                nursery.start_soon(migration.run)
        stopped = await channel.receive() is not None
        nursery.cancel_scope.cancel()
    if stopped:
        cpu_s = _cpu_s() - began_cpu_s
        for discarder in discarders:
            discarder.settle()
        await channel.send(kind="done", cpu_s=cpu_s)
    for discarder in discarders:
        discarder.close()


async def _vhost_user_host(stream: socket.socket, machine: Machine, channel: Channel) -> None:
    rehearse()
    service = MachineService(machine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.serve, stream)
        began_cpu_s = _cpu_s()
        stopped = await ready_and_go(channel)
        if stopped:
            nursery.start_soon(service.manage)
            stopped = await channel.receive() is not None
        nursery.cancel_scope.cancel()
    if stopped:
        await channel.send(kind="done", cpu_s=_cpu_s() - began_cpu_s)
