"""Kernels that use every atomic operation, for tests."""

from typing import Any

import numpy as np

from devices.memory.atomics import (
    compare_exchange,
    exchange,
    fence,
    fetch_add,
    futex_wait,
    futex_wake,
    load_acquire,
    load_relaxed,
    monotonic_ns,
    pause,
    prefetch_write,
    store_relaxed,
    store_release,
)
from devices.memory.jit import kernel


@kernel
def every_operation(words: Any, seen: Any) -> None:
    """Works on `words[0]`; what each operation returned goes to `seen` (i8[10])."""
    store_release(words, 0, "narrow", np.uint32(5))
    seen[0] = load_acquire(words, 0, "narrow")
    seen[1] = exchange(words, 0, "narrow", np.uint32(6))
    seen[2] = compare_exchange(words, 0, "narrow", np.uint32(9), np.uint32(1))
    seen[3] = compare_exchange(words, 0, "narrow", np.uint32(6), np.uint32(7))
    seen[4] = fetch_add(words, 0, "narrow", np.uint32(3))
    seen[5] = load_relaxed(words, 0, "narrow")
    store_relaxed(words, 0, "wide", 1 << 40)
    seen[6] = fetch_add(words, 0, "wide", 2)
    seen[7] = exchange(words, 0, "wide", -1)
    seen[8] = load_acquire(words, 0, "wide")
    fence()
    pause()
    prefetch_write(words, 0)
    prefetch_write(words, 1 << 40)  # Beyond all memory, and no fault.
    seen[9] = monotonic_ns()


@kernel
def count_up(words: Any, index: int, times: int) -> None:
    """Add 1 to both fields of a record, by fetch-add and by compare-and-swap."""
    for _ in range(times):
        fetch_add(words, index, "wide", 1)
        while True:
            old = load_relaxed(words, index, "narrow")
            if compare_exchange(words, index, "narrow", old, np.uint32(old + 1)) == old:
                break


@kernel
def sleep_on(words: Any, value: int, timeout_ns: int) -> int:
    """futex_wait on `words[0]["narrow"]` while it holds `value`."""
    return futex_wait(words, 0, "narrow", np.uint32(value), timeout_ns)


@kernel
def wake_one(words: Any, value: int) -> int:
    """Store and wake; how many were woken."""
    store_release(words, 0, "narrow", np.uint32(value))
    return futex_wake(words, 0, "narrow", 1, 0)
