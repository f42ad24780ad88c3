"""Atomic operations: what they return, and that they hold between processes."""

import os
import time

import numpy as np
import pytest

from devices.memory.jit import interpreted
from devices.memory.mapping import map_file
from tests.support.atomics_kernels import count_up, every_operation, sleep_on, wake_one

WORDS = np.dtype([("narrow", "<u4"), ("unused", "<u4"), ("wide", "<i8")])
compiled_only = pytest.mark.skipif(interpreted(), reason="interpreted kernels run alone")


def shared_words(count: int) -> tuple[int, np.ndarray]:
    fd = os.memfd_create("atomics-test")
    os.ftruncate(fd, 4096)
    return fd, map_file(fd, 4096)[: count * WORDS.itemsize].view(WORDS)


def in_children(count: int, work: object) -> list[int]:
    """Run `work(index)` in as many forked processes; their exit codes."""
    pids = []
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = work(index) or 0  # type: ignore[operator]
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_each_operation_returns_what_its_name_says() -> None:
    words = np.zeros(1, WORDS)
    seen = np.zeros(10, np.int64)
    before_ns = time.monotonic_ns()
    every_operation(words, seen)
    assert list(seen[:9]) == [5, 5, 6, 6, 7, 10, 1 << 40, (1 << 40) + 2, -1]
    assert before_ns <= seen[9] <= time.monotonic_ns()


@compiled_only
def test_no_increment_is_lost_between_processes() -> None:
    times, processes = 100_000, 3
    fd, words = shared_words(2)
    count_up(words, 1, 0)  # Compiled before the fork.
    assert in_children(processes, lambda index: count_up(words, 1, times)) == [0] * processes
    assert words[1]["wide"] == times * processes
    assert words[1]["narrow"] == times * processes
    assert words[0]["wide"] == 0
    os.close(fd)


@compiled_only
def test_a_sleeper_is_woken_by_another_process() -> None:
    fd, words = shared_words(1)
    sleep_on(words, 1, 0)  # Holds 0: returns at once, compiled.

    def sleep_until_woken(index: int) -> int:
        while words[0]["narrow"] == 0:
            sleep_on(words, 0, 5_000_000_000)
        return 0

    pid = os.fork()
    if pid == 0:
        os._exit(sleep_until_woken(0))
    deadline = time.monotonic() + 5
    while wake_one(words, 0) == 0 and time.monotonic() < deadline:
        time.sleep(0.001)  # Until the child really sleeps: the word keeps its value.
    wake_one(words, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert time.monotonic() < deadline
    os.close(fd)


@compiled_only
def test_a_sleep_ends_by_itself() -> None:
    words = np.zeros(1, WORDS)
    sleep_on(words, 1, 0)
    began = time.monotonic()
    sleep_on(words, 0, 20_000_000)
    assert time.monotonic() - began >= 0.019


@compiled_only
@pytest.mark.parametrize(
    ("field", "complaint"),
    [("real", "not an integer of 1, 2, 4 or 8 bytes"), ("odd", "not naturally")],
)
def test_a_field_that_cannot_be_atomic_is_refused(field: str, complaint: str) -> None:
    import numba

    from devices.memory.atomics import load_acquire

    dtype = np.dtype([("real", "<f4"), ("tiny", "u1"), ("odd", "<u4"), ("rest", "u1", (3,))])
    scope = {"load_acquire": load_acquire}  # The name of a field must be a literal: two sources.
    exec(f"def load(words):\n    return load_acquire(words, 0, {field!r})\n", scope)
    with pytest.raises(TypeError, match=complaint):
        numba.njit(scope["load"])(np.zeros(1, dtype))
