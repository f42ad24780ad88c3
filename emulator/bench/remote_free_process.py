"""Two processes free what the other has allocated: remote frees, as LLFree's benchmark `rand`.

Each fills its half of a table in shared memory with pages of one guest; the table is shuffled; each
frees the half that it then has.  Both are pinned, and begin together.
"""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.region import Layout, Region
from emulator.bench.cache_line import describe, round_trip_ns, two_cpus
from emulator.bench.guest import boot_guest, layout_of, memory_of, new_region, require_sound
from emulator.bench.kernels import fill, free_all, meet
from emulator.bench.layout import MEETING
from emulator.bench.series import Measurement
from emulator.config.guest import GuestConfig
from emulator.errors import RunFailed
from emulator.guest.mm.page_alloc_kernels import drain_pcps
from emulator.guest.mm.views import GuestMemory
from emulator.interrupt import blocked_interrupt
from emulator.launch.fork_server import anonymous_main
from emulator.observer import Observer

MEMORY_BYTES: Final = 8 << 30
_REPEATS: Final = 7
_ANSWER_S_MAX: Final = 120.0  # Kernels may have to be compiled.
_MEET_NS_MAX: Final = 10_000_000_000
_NEVER_MET: Final = -1


def measure_remote_free(
    names: Sequence[str], observer: Observer, *, memory_bytes: int = MEMORY_BYTES
) -> Mapping[str, Measurement]:
    """`alloc.remote_free_ns`; not measured with one CPU only."""
    cpus = two_cpus()
    if cpus is None:
        return {name: Measurement((), "needs two CPUs") for name in names}
    guest = GuestConfig(memory_bytes=memory_bytes, vcpus=2, ram="accounted")
    before = round_trip_ns()
    with new_region(_layout(guest), shared=True) as region:
        boot_guest(guest, region)
        values = _measure(region, cpus)
        require_sound(memory_of(region))
    return {name: Measurement(tuple(values), describe(before, round_trip_ns())) for name in names}


def _layout(guest: GuestConfig) -> Layout:
    return {
        **layout_of(guest),
        "meetings": (MEETING, _REPEATS + 1),
        "held": (np.dtype("<u4"), guest.pages // 2),
    }


def _measure(region: Region, cpus: tuple[int, int]) -> list[float]:
    """Start the other process, and do the rounds; the first is not counted."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    other = context.Process(
        target=other_main, args=(its, region.name, region.layout, cpus[1]), daemon=True
    )
    with blocked_interrupt(), anonymous_main():
        other.start()
    its.close()
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpus[0]})
        return [_round(region, mine, number) for number in range(_REPEATS + 1)][1:]
    except (EOFError, ConnectionError):
        raise RunFailed("the other process of the benchmark died") from None
    finally:
        os.sched_setaffinity(0, allowed)
        mine.close()  # Which ends the other one.
        other.join(5)
        if other.is_alive():
            other.kill()
            other.join()


def _round(region: Region, other: Connection, number: int) -> float:
    """ns a page of the slower one."""
    mm, held = memory_of(region), region.arrays["held"]
    half = len(held) // 2
    other.send(number)
    fill_own(mm, 0, held[:half])
    _answer(other)
    np.random.default_rng(number).shuffle(held)
    other.send(number)
    mine_ns = free_own(mm, 0, held[:half], region.arrays["meetings"][number : number + 1])
    slower_ns = max(mine_ns, _answer(other))
    if mine_ns == _NEVER_MET:
        raise RunFailed("the two processes of the benchmark did not meet")
    return slower_ns / half


def _answer(other: Connection) -> int:
    if not other.poll(_ANSWER_S_MAX):
        raise RunFailed(f"the other process of the benchmark is silent for {_ANSWER_S_MAX:.0f} s")
    return int(other.recv())


def fill_own(mm: GuestMemory, cpu: int, held: npt.NDArray[Any]) -> int:
    """Allocate a page for each entry; RunFailed if there are not enough."""
    if fill(mm, cpu, held) != len(held):
        raise RunFailed("the guest is too small for the benchmark")
    return len(held)


def free_own(mm: GuestMemory, cpu: int, held: npt.NDArray[Any], meeting: npt.NDArray[Any]) -> int:
    """Wait for the other one and free the pages; ns for that, or -1: it did not come."""
    if not meet(meeting, 2, _MEET_NS_MAX):
        return _NEVER_MET
    began_ns = time.perf_counter_ns()
    free_all(mm, cpu, held)
    ended_ns = time.perf_counter_ns()
    drain_pcps(mm, cpu)  # So that every round begins with the same free memory.
    return ended_ns - began_ns


def other_main(starter: Connection, name: str, layout: Layout, cpu: int) -> None:
    """The other process: the second half of every round, until the pipe closes."""
    os.sched_setaffinity(0, {cpu})
    with Region.attach(name, layout) as region:
        try:
            while True:
                number = int(starter.recv())
                half = len(region.arrays["held"]) // 2
                held = region.arrays["held"][half:]
                meeting = region.arrays["meetings"][number : number + 1]
                starter.send(fill_own(memory_of(region), 1, held))
                starter.recv()
                starter.send(free_own(memory_of(region), 1, held, meeting))
        except (EOFError, ConnectionError):
            pass
