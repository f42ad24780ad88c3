"""What of the raw speed of discards is left behind hinting task, ring and host process.

Real processes take the parts of the guest's kernel and of the host; this one is the only vCPU: it
makes memory resident, frees it, and wakes the hinting task, which reports without a delay.  In
turns with that, the ranges that the hinting task would report are worked out on a copy of the
guest's state, and a bare loop of the same system calls discards them (`bare_process`).
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.context import ForkServerContext
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.layout import DISCARD_RANGE
from devices.virtio.notifier import EventfdNotifier
from emulator.bench.bare_process import bare_main
from emulator.bench.hinting import start_loaded_fork_server
from emulator.bench.series import Measurement
from emulator.config.scenario import load_scenario
from emulator.errors import RunFailed
from emulator.guest.hinting.cycle import Report
from emulator.guest.hinting.mechanisms.page_reporting import IDLE
from emulator.guest.hinting.task import segments_of
from emulator.guest.mm.page_alloc_kernels import drain_pcps
from emulator.host.discard import join_adjacent
from emulator.interrupt import blocked_interrupt
from emulator.launch import children
from emulator.launch.child import Child, Passed
from emulator.launch.eventfds import Eventfds
from emulator.launch.fork_server import anonymous_main
from emulator.machine import Machine
from emulator.machine_check import require_machine
from emulator.memory_map import guest_memory
from emulator.observer import Observer
from emulator.workloads.kernels import alloc_batch, free_batch
from emulator.workloads.layout import HELD

_REPEATS: Final = 6
_FRACTION: Final = 0.95
_LOOK_S: Final = 1e-3
_IDLE_S_MAX: Final = 20.0
_START_S_MAX: Final = 120.0


def measure_reclaim(
    names: Sequence[str], observer: Observer, *, memory: str = "512MiB", repeats: int = _REPEATS
) -> Mapping[str, Measurement]:
    """`reclaim.ratio_to_raw`: one value for each two rounds."""
    require_machine()
    changed = ["guest.vcpus=1", f'guest.memory="{memory}"', 'mechanism.delay="0s"']
    scenario = load_scenario("memhog", changed)
    context = start_loaded_fork_server()
    with Machine.create(scenario, shared=True) as machine:
        through, bare = trio.run(_rounds, machine, context, repeats)
    ratios = tuple(a / b for a, b in zip(through, bare, strict=True))
    gib = [float(np.median(speeds)) / (1 << 30) for speeds in (through, bare)]
    note = f"{gib[0]:.2f} GiB/s through all, {gib[1]:.2f} GiB/s bare"
    return {name: Measurement(ratios, note) for name in names}


async def _rounds(
    machine: Machine, context: ForkServerContext, repeats: int
) -> tuple[list[float], list[float]]:
    """Bytes/s of rounds through all, and of bare ones, in turns: A B B A A B ..."""
    speeds: tuple[list[float], list[float]] = ([], [])
    async with _processes(machine, context) as (freed, loop):
        bench = ReclaimBench(machine, freed, loop)
        await bench.wait_idle(reports_min=1)
        await bench.through_all()  # Everything was touched once before it is timed.
        for repeat in range(repeats):
            for kind in (0, 1) if repeat % 2 == 0 else (1, 0):
                run = bench.bare if kind else bench.through_all
                speeds[kind].append(await run())
    return speeds


class ReclaimBench:
    """The vCPU of a machine whose other processes run; `freed` wakes its hinting task, and `loop`
    is the process of the bare loop."""

    def __init__(self, machine: Machine, freed: EventfdNotifier, loop: Child) -> None:
        self._machine = machine
        self._freed = freed
        self._loop = loop
        self._mm = machine.memory()
        self._ram = machine.ram.view()
        self._held = np.zeros(int(self._mm.zones["free_pages"].sum() * _FRACTION), HELD)

    async def through_all(self) -> float:
        """Bytes/s from waking the hinting task until it has nothing more to report."""
        host = self._machine.host[0]
        expected = self._free_resident()
        ranges, resident = int(host["ranges"]), self._machine.ram.file_resident_bytes()
        began_s = time.perf_counter()
        self._freed.notify()
        await self.wait_idle()
        elapsed_s = time.perf_counter() - began_s
        ranges = int(host["ranges"]) - ranges
        if ranges != len(expected):
            raise RunFailed(f"the host discarded {ranges} ranges and not {len(expected)}")
        return (resident - self._machine.ram.file_resident_bytes()) / elapsed_s

    async def bare(self) -> float:
        """Bytes/s of the same discards, in a loop; then the hinting task is let catch up."""
        found = self._free_resident()
        ranges = [[int(one["offset"]), int(one["length"])] for one in found]
        resident = self._machine.ram.file_resident_bytes()
        await self._loop.channel.send(kind="ranges", ranges=ranges)
        answer = await self._loop.receive()
        if answer is None:
            raise RunFailed("the bare loop's process died")
        returned = resident - self._machine.ram.file_resident_bytes()
        self._freed.notify()
        await self.wait_idle()
        return returned / float(answer["elapsed_s"])

    def _free_resident(self) -> npt.NDArray[Any]:
        """Touch nearly all memory and free it; what the hinting task will discard for that."""
        mm, held = self._mm, self._held
        got = int(alloc_batch(mm, self._ram, 0, held, 0, len(held), 0))
        free_batch(mm, self._ram, 0, held, 0, got)
        drain_pcps(mm, 0)
        return would_discard(self._machine)

    async def wait_idle(self, *, reports_min: int = 0) -> None:
        """Until the hinting task has nothing to report, and has made so many reports."""
        control = self._machine.guest["mechanism.control"]
        hinting = self._machine.guest["hinting"]
        with trio.move_on_after(_IDLE_S_MAX):
            while control[0]["state"] != IDLE or hinting[0]["reports"] < reports_min:
                await trio.sleep(_LOOK_S)
            return
        raise RunFailed(f"the hinting task did not come to an end within {_IDLE_S_MAX:.0f} s")


def would_discard(machine: Machine) -> npt.NDArray[Any]:
    """What one wake-up of the hinting task would have discarded, joined: DISCARD_RANGE[n].

    Its mechanism runs on a copy of the guest's state; nothing else may change that meanwhile.
    """
    copied = {name: array.copy() for name, array in machine.guest.items()}
    mm = guest_memory(copied, machine.mechanism)
    cycle = machine.mechanism.start(mm, machine.scenario.guest.vcpus)
    assert cycle is not None
    now_s = time.monotonic()
    found = [np.zeros(0, DISCARD_RANGE)]
    while True:
        decision = cycle.step(now_s)
        if isinstance(decision, Report):
            segments = segments_of(decision.batch)
            ranges = np.zeros(len(segments), DISCARD_RANGE)
            ranges["offset"], ranges["length"] = segments["addr"], segments["len"]
            found.append(join_adjacent(ranges))
            cycle.drain(True, now_s)
        elif decision.until_s is None:
            return np.concatenate(found)


@asynccontextmanager
async def _processes(
    machine: Machine, context: ForkServerContext
) -> AsyncIterator[tuple[EventfdNotifier, Child]]:
    """The host and the guest's kernel at work; yields what wakes the hinting task, and the bare
    loop's process."""
    wires = Eventfds.of(machine)
    handle, ram, passed = machine.handle(), Passed(machine.ram.fd), wires.passed()
    started: list[Child] = []
    try:
        with blocked_interrupt(), anonymous_main():
            guest = children.Served(handle, ram, passed)
            starts: tuple[tuple[str, Callable[..., None], tuple[object, ...]], ...] = (
                ("host", children.host_main, ([guest],)),
                ("guest kernel", children.guest_kernel_main, guest),
                ("bare loop", bare_main, (handle, ram)),
            )
            for name, main, given in starts:
                started.append(Child.start(context, name, main, *given))
        with trio.move_on_after(_START_S_MAX) as starting:
            for child in started:
                await child.wait_ready()
        if starting.cancelled_caught:
            raise RunFailed(f"the processes did not start within {_START_S_MAX:.0f} s")
        machine.unlink()
        for child in started:
            await child.channel.send(kind="go")
        yield wires["freed"], started[-1]
    except (EOFError, ConnectionError):
        raise RunFailed("the fork server died") from None
    finally:
        with trio.CancelScope(shield=True):
            for child in started:
                child.kill()
                child.exitcode()
                await child.channel.aclose()
        wires.close()
