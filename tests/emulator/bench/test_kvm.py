"""What the series of KVM measure: that it is done at all, and soundly; not how fast."""

import os

import numpy as np
import pytest

from emulator.bench.cache_line import two_cpus
from emulator.bench.kvm import Instrument, discards_while_running, function_calls, measure_kvm
from emulator.bench.series import SERIES
from emulator.observer import NullObserver

NAMES = [one.name for one in SERIES if one.name.startswith("kvm.")]


@pytest.fixture(scope="module")
def cpus() -> tuple[int, int]:
    found = two_cpus()
    if found is None:
        pytest.skip("needs two CPUs")
    try:
        Instrument(found).close()
    except OSError as error:
        pytest.skip(f"no guest of KVM here: {error}")
    return found


@pytest.mark.skipif(two_cpus() is None, reason="needs two CPUs")
@pytest.mark.parametrize(("device", "why"), [("/dev/null", "ioctl"), ("/dev/none", "No such file")])
def test_without_kvm_there_is_a_reason_and_no_figure(device: str, why: str) -> None:
    found = measure_kvm(NAMES, NullObserver(), device=device)
    assert list(found) == NAMES
    for one in found.values():
        assert one.values == ()
        assert one.note.startswith(f"{device}: ") and why in one.note


def test_what_nobody_has_touched_interrupts_nobody(cpus: tuple[int, int]) -> None:
    instrument = Instrument(cpus)
    try:
        by_guest = discards_while_running(instrument, 4096)
        by_nobody = discards_while_running(instrument, 4096, touched=False)
    finally:
        instrument.close()
    # By the system's counters, as other processes take the CPU from the guest now and then.
    assert by_guest.ipis > 1.5
    assert abs(by_nobody.ipis) < 0.5


def test_a_discard_gives_memory_back_that_the_guest_had_touched(cpus: tuple[int, int]) -> None:
    instrument = Instrument(cpus)
    try:
        start = instrument.start
        instrument.touch(4 << 20)
        assert instrument.memory[start : start + (4 << 20)].view(np.uint64)[::512].all()
        instrument.discard(start, 2 << 20)
        pages = instrument.memory[start : start + (4 << 20)].view(np.uint64)[::512]
        assert not pages[:512].any() and pages[512:].all()
    finally:
        instrument.close()


def test_every_series_is_measured(cpus: tuple[int, int]) -> None:
    allowed = os.sched_getaffinity(0)
    found = measure_kvm(NAMES, NullObserver(), rounds=2)
    assert list(found) == NAMES
    assert all(len(one.values) == 2 and one.note for one in found.values())
    assert min(found["kvm.ipis_per_discard"].values) > 1.5
    assert os.sched_getaffinity(0) == allowed


def test_function_calls_of_a_cpu_only_grow() -> None:
    cpu = min(os.sched_getaffinity(0))
    before = function_calls(cpu)
    assert function_calls(cpu) >= before >= 0
