"""Real processes in real time: a vCPU each, the guest's kernel, the host, and this supervisor.

The supervisor starts them, waits until all are ready, gives the signal, samples, and stops them in
the order in which they depend on each other: vCPUs, guest kernel, host.  Whatever happens to any of
them, itself included, no process and no segment stays: names of segments are removed once all have
attached, a child ends when its channel does, and the fork server's death is a child's.
"""

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerContext
from typing import Any, Final

import trio

from devices.virtio.notifier import EventfdNotifier
from emulator.errors import RunFailed
from emulator.guest.kernel_task import Standing
from emulator.launch import children
from emulator.launch.channel import Channel
from emulator.launch.fork_server import blocked_interrupt
from emulator.machine import Machine
from emulator.measure import RunTimes, summarize
from emulator.observer import Observer
from emulator.sampler import Sampler
from emulator.summary import Summary

_START_S_MAX: Final = 120.0  # Kernels may have to be compiled.
_STOP_S_MAX: Final = 60.0  # A report under way, and counting every page of a large guest.
_REAP_S_MAX: Final = 5.0


class ProcessDied(RunFailed):
    """A process that the run cannot do without has ended."""

    def __init__(self, name: str, exitcode: int | None) -> None:
        super().__init__(f"the {name} {how_ended(exitcode)}; the run was ended")


def how_ended(exitcode: int | None) -> str:
    """In words."""
    if exitcode is None:
        return "vanished"
    if exitcode < 0:
        return f"was killed by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    return f"ended by itself with exit code {exitcode}"


@dataclass(slots=True)
class Child:
    """A process, our end of its channel, and what it said when it was done."""

    name: str
    process: Any
    channel: Channel
    done: dict[str, Any] | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    def exitcode(self) -> int | None:
        """How it ended; waits a moment for the system to know."""
        self.process.join(_REAP_S_MAX)
        code: int | None = self.process.exitcode
        return code


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
        machine = self._machine
        notifiers = [EventfdNotifier() for _ in range(3)]
        try:
            with blocked_interrupt(), _anonymous_main():
                host, guest_kernel, vcpus = self._start(*notifiers)
            with trio.fail_after(_START_S_MAX):
                for child in self._children:
                    await self._expect(child, "ready")
            machine.unlink()
            return await self._run(host, guest_kernel, vcpus)
        except trio.TooSlowError:
            raise RunFailed(f"a process did not start within {_START_S_MAX:.0f} s") from None
        finally:
            with trio.CancelScope(shield=True):
                self._kill_all()
                for child in self._children:
                    await child.channel.aclose()
            for notifier in notifiers:
                notifier.close()

    def _start(
        self, freed: EventfdNotifier, kick: EventfdNotifier, call: EventfdNotifier
    ) -> tuple[Child, Child, list[Child]]:
        host = self._child("host", children.host_main, kick, call)
        guest_kernel = self._child("guest kernel", children.guest_kernel_main, freed, kick, call)
        vcpus = [
            self._child(f"vCPU {index}", partial(_vcpu_main, index), freed)
            for index in range(self._machine.scenario.guest.vcpus)
        ]
        return host, guest_kernel, vcpus

    def _child(self, name: str, main: Callable[..., None], *notifiers: EventfdNotifier) -> Child:
        mine, its = socket.socketpair()
        process = self._context.Process(
            target=_enter,
            args=(
                main,
                self._machine.handle(),
                Passed(self._machine.ram.fd),
                its,
                [Passed(notifier.fd) for notifier in notifiers],
            ),
            name=name,
            daemon=True,
        )
        process.start()
        its.close()
        child = Child(name, process, Channel(mine))
        self._children.append(child)
        return child

    async def _expect(self, child: Child, kind: str) -> dict[str, Any]:
        message = await child.channel.receive()
        if message is None:
            raise ProcessDied(child.name, child.exitcode())
        assert message["kind"] == kind, message
        return message

    async def _run(self, host: Child, guest_kernel: Child, vcpus: list[Child]) -> Summary:
        scenario = self._machine.scenario
        self._began_s = time.monotonic()
        self._observer.phase("running")
        self._take_sample()
        for child in (host, guest_kernel, *vcpus):
            await child.channel.send(kind="go")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_for_ever, scenario.run.sample_s)
            nursery.start_soon(_end_on_sigterm)
            for child in (host, guest_kernel):
                nursery.start_soon(self._follow, child, None)
            with trio.move_on_after(scenario.run.time_limit_s or float("inf")) as limit:
                async with trio.open_nursery() as running:
                    for index, child in enumerate(vcpus):
                        bury = partial(guest_kernel.channel.send, kind="bury", vcpu=index)
                        running.start_soon(self._follow, child, bury)
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

    async def _follow(self, child: Child, bury: Callable[[], Any] | None) -> None:
        """Listen to a child until it is done.  One that dies is buried, or ends the run."""
        while (message := await child.channel.receive()) is not None:
            if message["kind"] == "phase":
                self._sampler.note(time.monotonic() - self._began_s)
            elif message["kind"] == "buried":
                pages = message["pages"]
                self._observer.event(f"{pages} pages of vCPU {message['vcpu']} were taken back")
            elif message["kind"] == "done":
                child.done = message
                child.ended.set()
                return
        exitcode = child.exitcode()
        if bury is None:
            raise ProcessDied(child.name, exitcode)
        self._observer.event(f"{child.name} {how_ended(exitcode)}; the run goes on without it")
        child.ended.set()
        await bury()

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
        if self._machine.host[0]["broken"]:
            raise RunFailed("the guest broke the ring's protocol and its device was stopped")
        times = RunTimes(
            began_s=self._began_s,
            ended_s=ended_s,
            wall_s=ended_s - self._began_s,
            virtual=False,
            host_cpu_s=host.done["cpu_s"],
            guest_kernel_cpu_s=guest_kernel.done["cpu_s"],
        )
        return summarize(self._machine, self._sampler, standing, times)

    def _kill_all(self) -> None:
        for child in self._children:
            if child.process.is_alive():
                child.process.kill()
        for child in self._children:
            child.process.join(_REAP_S_MAX)


class Passed:
    """A descriptor on its way to a child: pickled while that child is started, no other time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return (_arrived, (children.dup(self._fd),))


def _arrived(dup: Any) -> Any:
    return dup


def _enter(
    main: Callable[..., None], handle: Any, ram: Any, end: socket.socket, notifiers: list[Any]
) -> None:
    main(handle, ram, end, *notifiers)


def _vcpu_main(index: int, handle: Any, ram: Any, end: socket.socket, freed: Any) -> None:
    children.vcpu_main(handle, ram, end, freed, index)


def run_processes(machine: Machine, context: ForkServerContext, observer: Observer) -> Summary:
    """Run a machine whose segments are shared to its end."""
    try:
        return trio.run(Supervisor(machine, context, observer).run)
    except BaseExceptionGroup as group:
        raise _first_cause(group) from None


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell the user: one failure, and an interrupt before all else."""
    for kind in (KeyboardInterrupt, RunFailed):
        found = group.subgroup(kind)
        if found is not None:
            error: BaseException = found
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            return error
    return group


async def _end_on_sigterm() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as received:
        async for number in received:
            raise RunFailed(f"ended by {signal.Signals(number).name}")


@contextlib.contextmanager
def _anonymous_main() -> Iterator[None]:
    """Processes that are started in here do not import our main module again: they need nothing
    of it, and it may be a test runner."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
