"""Real processes in real time: a vCPU each, the guest's kernel, the host, and this supervisor.

The supervisor starts them, waits until all are ready, gives the signal, samples, and stops them in
the order in which they depend on each other: vCPUs, guest kernel, host.  A vCPU that dies is buried
and the run goes on; the death of any other ends it.  Whatever happens to any of them, itself
included, no process and no segment stays: names of segments are removed once all have attached, a
child ends when its channel does, and the fork server's death is a child's.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.context import ForkServerContext
from typing import Final

import trio

from devices.virtio.notifier import EventfdNotifier
from emulator.errors import MachineLacks, RunFailed
from emulator.guest.kernel_task import Standing
from emulator.guest.recovery_task import take_back
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
from emulator.measure import RunTimes, summarize
from emulator.observer import Observer
from emulator.sampler import Sampler
from emulator.summary import Summary

_START_S_MAX: Final = 120.0  # Kernels may have to be compiled.
_LOOK_EVERY_S: Final = 0.5
_STOP_S_MAX: Final = 60.0  # A report under way, and counting every page of a large guest.


class Supervisor:
    """One run of one machine."""

    def __init__(self, machine: Machine, context: ForkServerContext, observer: Observer) -> None:
        self._machine = machine
        self._context = context
        self._observer = observer
        self._sampler = Sampler(machine.guest, machine.host, machine.ram)
        self._children: list[Child] = []
        self._began_s = 0.0

    async def run(self) -> Summary:
        """Start, run and stop; RunFailed if it did not go well."""
        with closing(Eventfds.of(self._machine)) as wires:
            try:
                host, guest_kernel, vcpus = await self._start(wires)
                return await self._run(host, guest_kernel, vcpus, wires["freed"])
            finally:
                with trio.CancelScope(shield=True):
                    for child in self._children:
                        child.kill()
                    for child in self._children:
                        child.exitcode()
                        await child.channel.aclose()

    async def _start(self, wires: Eventfds) -> tuple[Child, Child, list[Child]]:
        """Start all, and wait until all are ready."""
        machine = self._machine
        try:
            with trio.fail_after(_START_S_MAX):
                await _wait_loaded()
                with anonymous_main():
                    started = self._start_children(wires)
                for child in self._children:
                    await child.wait_ready()
        except trio.TooSlowError:
            raise RunFailed(f"the processes did not start within {_START_S_MAX:.0f} s") from None
        except (EOFError, ConnectionError):
            raise ProcessDied("fork server", fork_server_exitcode()) from None
        except OSError as error:
            raise MachineLacks(f"the processes cannot be started: {error.strerror}") from error
        machine.unlink()
        return started

    def _start_children(self, wires: Eventfds) -> tuple[Child, Child, list[Child]]:
        handle, ram = self._machine.handle(), Passed(self._machine.ram.fd)
        passed = wires.passed()

        def start(name: str, main: Callable[..., None], *arguments: object) -> Child:
            child = Child.start(self._context, name, main, handle, ram, passed, *arguments)
            self._children.append(child)
            return child

        if self._machine.scenario.run.transport == "vhost-user":
            front, back = socket.socketpair()
            with front, back:  # Each child gets a duplicate of its own.
                host = start("host", children.vhost_user_host_main, Passed(back.fileno()))
                front_end = Passed(front.fileno())
                guest_kernel = start(
                    "guest kernel", children.vhost_user_guest_kernel_main, front_end
                )
        else:
            host = start("host", children.host_main)
            guest_kernel = start("guest kernel", children.guest_kernel_main)
        vcpus = [
            start(f"vCPU {index}", children.vcpu_main, index)
            for index in range(self._machine.scenario.guest.vcpus)
        ]
        return host, guest_kernel, vcpus

    async def _run(
        self, host: Child, guest_kernel: Child, vcpus: list[Child], freed: EventfdNotifier
    ) -> Summary:
        scenario = self._machine.scenario
        self._began_s = time.monotonic()
        self._observer.phase("running")
        self._take_sample()
        for child in self._children:
            await child.channel.send(kind="go")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_for_ever, scenario.run.sample_s)
            for child in (host, guest_kernel):
                nursery.start_soon(self._follow, child)
            with trio.move_on_after(scenario.run.time_limit_s or float("inf")) as limit:
                async with trio.open_nursery() as running:
                    for index, child in enumerate(vcpus):
                        running.start_soon(self._follow_vcpu, child, index, freed)
            if limit.cancelled_caught:
                raise RunFailed(
                    f"the workload took longer than run.time_limit, {scenario.run.time_limit_s} s"
                )
            if all(child.done is None for child in vcpus):
                raise RunFailed("every vCPU has died; the run was ended")
            ended_s = time.monotonic()
            self._take_sample()
            for child in (guest_kernel, host):
                await self._stop(child)
            nursery.cancel_scope.cancel()
        return self._summarize(host, guest_kernel, ended_s)

    async def _follow(self, child: Child) -> None:
        """Listen to a child until it is done; ProcessDied if it ends before."""
        while (message := await child.receive()) is not None:
            if message["kind"] == "phase":
                self._sampler.note(time.monotonic() - self._began_s)
            elif message["kind"] == "done":
                child.done = message
                child.ended.set()
                return
        raise ProcessDied(child.name, child.exitcode())

    async def _follow_vcpu(self, child: Child, index: int, freed: EventfdNotifier) -> None:
        """The same; one that died is buried, and the run goes on."""
        try:
            await self._follow(child)
        except ProcessDied:
            event = f"{child.name} {how_ended(child.exitcode())}; the run goes on without it"
            self._observer.event(event)
            now_ns = time.monotonic_ns()
            pages = await take_back(self._machine.memory(), index, now_ns=now_ns)
            freed.notify()  # It may have died just before it could.
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

    def _summarize(self, host: Child, guest_kernel: Child, ended_s: float) -> Summary:
        assert host.done is not None and guest_kernel.done is not None
        standing = Standing(**guest_kernel.done["standing"])
        if standing.unsound:
            raise RunFailed(f"the guest's memory is not sound: {standing.unsound}")
        times = RunTimes(
            began_s=self._began_s,
            ended_s=ended_s,
            wall_s=ended_s - self._began_s,
            virtual=False,
            host_cpu_s=host.done["cpu_s"],
            guest_kernel_cpu_s=guest_kernel.done["cpu_s"],
        )
        return summarize(self._machine, self._sampler, standing, times)


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


def run_processes(machine: Machine, context: ForkServerContext, observer: Observer) -> Summary:
    """Run a machine whose segments are shared to its end."""
    try:
        return trio.run(
            Supervisor(machine, context, observer).run,
            restrict_keyboard_interrupt_to_checkpoints=True,  # Never in the middle of our code.
        )
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
