"""One process allocates and frees, the allocator alone: pairs, and churn on a guest that is full.

As LLFree's benchmarks `repeat` (a pair on a half full allocator) and its random put and get.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from emulator.bench.guest import boot_guest, layout_of, new_region, require_sound
from emulator.bench.kernels import churn, fill, pairs
from emulator.bench.series import Measurement
from emulator.config.guest import GuestConfig
from emulator.errors import RunFailed
from emulator.guest.mm.views import GuestMemory
from emulator.observer import Observer

Held = npt.NDArray[np.uint32]

MEMORY_BYTES: Final = 8 << 30
_REPEATS: Final = 9
_PAIRS: Final = 5_000_000
_CHURNS: Final = 1_000_000
_SEED: Final = 88172645463325252


def measure_pairs(
    names: Sequence[str],
    observer: Observer,
    *,
    memory_bytes: int = MEMORY_BYTES,
    count: int = _PAIRS,
) -> Mapping[str, Measurement]:
    """ns for one allocation and its free: `alloc.order0_pair_ns`, `alloc.order9_pair_ns`."""
    orders = {"alloc.order0_pair_ns": 0, "alloc.order9_pair_ns": 9}
    found = {}
    with _filled_guest(memory_bytes, 0.5) as (mm, _):
        for name in names:
            found[name] = _repeat(partial(pairs, mm, 0, orders[name]), count)
        require_sound(mm)
    return found


def measure_churn(
    names: Sequence[str],
    observer: Observer,
    *,
    memory_bytes: int = MEMORY_BYTES,
    count: int = _CHURNS,
) -> Mapping[str, Measurement]:
    """ns for the free of a random page and an allocation: `alloc.churn50_ns` and the others."""
    levels = {f"alloc.churn{level}_ns": level / 100 for level in (50, 70, 90)}
    found = {}
    for name in names:
        random = np.array([_SEED], np.uint64)
        with _filled_guest(memory_bytes, levels[name]) as (mm, held):
            np.random.default_rng(1).shuffle(held)
            found[name] = _repeat(partial(churn, mm, 0, held, random), count)
            require_sound(mm)
    return found


def _repeat(run: Callable[[int], int], count: int) -> Measurement:
    """Time `run(count)` several times, after one call that compiles and warms up."""
    run(count // 10)
    values = []
    for _ in range(_REPEATS):
        began_ns = time.perf_counter_ns()
        done = run(count)
        ended_ns = time.perf_counter_ns()
        if done != count:
            raise RunFailed(f"out of memory after {done} of {count} allocations")
        values.append((ended_ns - began_ns) / count)
    return Measurement(tuple(values))


@contextmanager
def _filled_guest(memory_bytes: int, level: float) -> Iterator[tuple[GuestMemory, Held]]:
    """A guest of one vCPU that holds `level` of the memory, and the pages it holds."""
    guest = GuestConfig(memory_bytes=memory_bytes, vcpus=1, ram="accounted")
    with new_region(layout_of(guest), shared=False) as region:
        mm = boot_guest(guest, region)
        held = np.zeros(int(guest.pages * level), np.uint32)
        if fill(mm, 0, held) != len(held):
            raise RunFailed(f"a guest of {memory_bytes >> 20} MiB cannot be filled to {level:.0%}")
        yield mm, held
