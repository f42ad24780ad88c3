"""Real processes in real time: a vCPU each, a guest's kernel, the host, and this supervisor.

The supervisor starts them, waits until all are ready, gives the signal, samples, and stops them in
the order in which they depend on each other: vCPUs, guest kernels, host.  A vCPU that dies is
buried and the run goes on; the death of any other ends it.  Whatever happens to any of them, itself
included, no process and no segment stays: names of segments are removed once all have attached, a
child ends when its channel does, and the fork server's death is a child's.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from typing import Final

import trio

from emulator.errors import MachineLacks, RunFailed
from emulator.guest.kernel_task import Standing
from emulator.guest.recovery_task import take_back
from emulator.guests import Guests, name_of
from emulator.guests_sampler import GuestsSampler
from emulator.guests_summary import summarize_guests
from emulator.launch import children
from emulator.launch.child import Child, Passed
from emulator.launch.eventfds import Eventfds
from emulator.launch.failure import ProcessDied, first_cause, how_ended, process_failed
from emulator.launch.fork_server import (
    anonymous_main,
    fork_server_exitcode,
    take_loading_fd,
)
from emulator.machine import Machine
from emulator.measure import RunTimes
from emulator.observer import Observer
from emulator.summary import Summary

_START_S_MAX: Final = 300.0  # Kernels may have to be compiled, beside other work.
_LOOK_EVERY_S: Final = 0.5
_STOP_S_MAX: Final = 60.0  # A report under way, and counting every page of a large guest.


@dataclass(slots=True)
class _Guest:
    """One guest's processes, and what they wake each other by."""

    name: str  # Precedes a process's own; empty if this is the only guest.
    machine: Machine
    wires: Eventfds
    start_s: float  # When its workload begins.
    kernel: Child | None = None
    vcpus: list[Child] = field(default_factory=list)


class Supervisor:
    """One run of a host's guests."""

    def __init__(
        self,
        machines: Guests,
        context: ForkServerContext,
        observer: Observer,
        sampler: GuestsSampler,
    ) -> None:
        self._scenario = machines[0].scenario
        self._machines = machines
        self._context = context
        self._observer = observer
        self._sampler = sampler
        self._children: list[Child] = []
        self._began_s = 0.0

    async def run(self) -> Summary:
        """Start, run and stop; RunFailed if it did not go well."""
        with ExitStack() as stack:
            guests = [
                _Guest(
                    name=name_of(self._machines, index),
                    machine=machine,
                    wires=stack.enter_context(closing(Eventfds.of(machine))),
                    start_s=self._scenario.guests.start_s(index),
                )
                for index, machine in enumerate(self._machines)
            ]
            try:
                host = await self._start(guests)
                return await self._run(host, guests)
            finally:
                with trio.CancelScope(shield=True):
                    for child in self._children:
                        child.kill()
                    for child in self._children:
                        child.exitcode()
                        await child.channel.aclose()

    async def _start(self, guests: Sequence[_Guest]) -> Child:
        """Start all, and wait until all are ready."""
        try:
            with trio.fail_after(_START_S_MAX):
                await _wait_loaded()
                with anonymous_main():
                    host = self._start_host(guests)
                    for guest in guests:
                        self._start_vcpus(guest)
                for child in self._children:
                    await child.wait_ready()
        except trio.TooSlowError:
            raise RunFailed(f"the processes did not start within {_START_S_MAX:.0f} s") from None
        except (EOFError, ConnectionError):
            raise ProcessDied("fork server", fork_server_exitcode()) from None
        except OSError as error:
            raise MachineLacks(f"the processes cannot be started: {error.strerror}") from error
        for guest in guests:
            guest.machine.unlink()
        return host

    def _start_child(self, name: str, main: Callable[..., None], *arguments: object) -> Child:
        child = Child.start(self._context, name, main, *arguments)
        self._children.append(child)
        return child

    def _start_host(self, guests: Sequence[_Guest]) -> Child:
        """The host, and each guest's kernel, which is connected to it."""
        if self._scenario.run.transport == "vhost-user":
            (guest,) = guests
            front, back = socket.socketpair()
            with front, back:  # Each child gets a duplicate of its own.
                ends = Passed(front.fileno()), Passed(back.fileno())
                host = self._start_child(
                    "host", children.vhost_user_host_main, *_served(guest), ends[1]
                )
                guest.kernel = self._start_child(
                    "guest kernel",
                    children.vhost_user_guest_kernel_main,
                    *_served(guest),
                    ends[0],
                )
            return host
        host = self._start_child("host", children.host_main, [_served(guest) for guest in guests])
        for guest in guests:
            name, main = f"{guest.name}guest kernel", children.guest_kernel_main
            guest.kernel = self._start_child(name, main, *_served(guest))
        return host

    def _start_vcpus(self, guest: _Guest) -> None:
        for index in range(guest.machine.scenario.guest.vcpus):
            name, main = f"{guest.name}vCPU {index}", children.vcpu_main
            guest.vcpus.append(self._start_child(name, main, *_served(guest), index))

    async def _run(self, host: Child, guests: Sequence[_Guest]) -> Summary:
        scenario = self._scenario
        self._began_s = time.monotonic()
        self._observer.phase("running")
        self._take_sample()
        vcpus = [child for guest in guests for child in guest.vcpus]
        kernels = [guest.kernel for guest in guests if guest.kernel is not None]
        for child in self._children:
            if child not in vcpus:
                await child.channel.send(kind="go")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_for_ever, scenario.run.sample_s)
            for child in (host, *kernels):
                nursery.start_soon(self._follow, child)
            with trio.move_on_after(scenario.run.time_limit_s or float("inf")) as limit:
                async with trio.open_nursery() as running:
                    for guest in guests:
                        running.start_soon(self._run_vcpus, guest)
            if limit.cancelled_caught:
                raise RunFailed(
                    f"the workload took longer than run.time_limit, {scenario.run.time_limit_s} s"
                )
            if all(child.done is None for child in vcpus):
                raise RunFailed("every vCPU has died; the run was ended")
            ended_s = time.monotonic()
            self._take_sample()
            for child in (*kernels, host):
                await self._stop(child)
            nursery.cancel_scope.cancel()
        return self._summarize(host, kernels, ended_s)

    async def _run_vcpus(self, guest: _Guest) -> None:
        """Give them the signal in their time, and follow them to their end."""
        async with trio.open_nursery() as running:
            for index, child in enumerate(guest.vcpus):
                running.start_soon(self._follow_vcpu, guest, child, index)
            await trio.sleep(guest.start_s)
            for child in guest.vcpus:
                await child.channel.send(kind="go")

    async def _follow(self, child: Child) -> None:
        """Listen to a child until it is done; ProcessDied if it ends before."""
        while (message := await child.receive()) is not None:
            if message["kind"] == "phase":
                for sampler in self._sampler.guests:
                    sampler.note(time.monotonic() - self._began_s)
            elif message["kind"] == "done":
                child.done = message
                child.ended.set()
                return
        raise ProcessDied(child.name, child.exitcode())

    async def _follow_vcpu(self, guest: _Guest, child: Child, index: int) -> None:
        """The same; one that died is buried, and the run goes on."""
        try:
            await self._follow(child)
        except ProcessDied:
            event = f"{child.name} {how_ended(child.exitcode())}; the run goes on without it"
            self._observer.event(event)
            now_ns = time.monotonic_ns()
            pages = await take_back(guest.machine.memory(), index, now_ns=now_ns)
            guest.wires["freed"].notify()  # It may have died just before it could.
            self._observer.event(f"{pages} pages of {child.name} were taken back")

    async def _stop(self, child: Child) -> None:
        await child.channel.send(kind="stop")
        with trio.move_on_after(_STOP_S_MAX):
            await child.ended.wait()
            return
        raise RunFailed(f"the {child.name} did not stop within {_STOP_S_MAX:.0f} s")

    async def _sample_for_ever(self, every_s: float) -> None:
        began = trio.current_time()
        count = 0
        while True:
            count = max(count + 1, int((trio.current_time() - began) / every_s))
            await trio.sleep_until(began + count * every_s)
            self._take_sample()

    def _take_sample(self) -> None:
        self._observer.sample(self._sampler.sample(time.monotonic() - self._began_s))

    def _summarize(self, host: Child, kernels: Sequence[Child], ended_s: float) -> Summary:
        assert host.done is not None
        standings, cpu_s = [], []
        for index, child in enumerate(kernels):
            assert child.done is not None
            standing = Standing(**child.done["standing"])
            if standing.unsound:
                name = name_of(self._machines, index)
                raise RunFailed(f"{name}the guest's memory is not sound: {standing.unsound}")
            standings.append(standing)
            cpu_s.append(child.done["cpu_s"])
        several = len(kernels) > 1
        times = [
            RunTimes(
                began_s=self._began_s,
                ended_s=ended_s,
                wall_s=ended_s - self._began_s,
                virtual=False,
                host_cpu_s=None if several else host.done["cpu_s"],
                guest_kernel_cpu_s=one,
            )
            for one in cpu_s
        ]
        return summarize_guests(
            self._machines, self._sampler, standings, times, host_cpu_s=host.done["cpu_s"]
        )


def _served(guest: _Guest) -> children.Served:
    machine = guest.machine
    return children.Served(machine.handle(), Passed(machine.ram.fd), guest.wires.passed())


async def _wait_loaded() -> None:
    """Until the fork server has loaded; `process_failed` if it cannot, ProcessDied if it died."""
    fd = take_loading_fd()
    said, over = b"", fd is None
    try:
        while fd is not None and not over and fork_server_exitcode() is None:
            with trio.move_on_after(_LOOK_EVERY_S):  # It may die before it opens the other end.
                await trio.lowlevel.wait_readable(fd)
                chunk = os.read(fd, 1 << 16)
                said, over = said + chunk, not chunk
    finally:
        if fd is not None:
            os.close(fd)
    if said:
        raise process_failed("fork server", json.loads(said))
    if (exitcode := fork_server_exitcode()) is not None:
        raise ProcessDied("fork server", exitcode)


def run_processes(
    guests: Guests,
    context: ForkServerContext,
    observer: Observer,
    sampler: GuestsSampler | None = None,
) -> Summary:
    """Run guests whose segments are shared to their end; `sampler`: as for `run_virtual`."""
    sampler = sampler or GuestsSampler(guests)
    try:
        return trio.run(
            Supervisor(guests, context, observer, sampler).run,
            restrict_keyboard_interrupt_to_checkpoints=True,  # Never in the middle of our code.
        )
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
