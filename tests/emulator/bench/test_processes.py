"""Series that need real processes, on small guests; marked slow."""

import os

import pytest

from emulator.bench.commands import first_operation_s
from emulator.bench.reclaim_task import measure_reclaim
from emulator.bench.remote_free_process import measure_remote_free
from emulator.bench.vhost_user_task import measure_idle, measure_report
from emulator.observer import NullObserver

pytestmark = pytest.mark.slow


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_two_processes_free_what_the_other_allocated() -> None:
    name, allowed = "alloc.remote_free_ns", os.sched_getaffinity(0)
    found = measure_remote_free([name], NullObserver(), memory_bytes=64 << 20)[name]
    assert len(found.values) == 7 and min(found.values) > 0
    assert "cache-line round trip" in found.note
    assert os.sched_getaffinity(0) == allowed


def test_the_host_discards_what_was_worked_out() -> None:
    name = "reclaim.ratio_to_raw"
    found = measure_reclaim([name], NullObserver(), memory="256MiB", repeats=2)[name]
    assert len(found.values) == 2 and min(found.values) > 0


def test_a_command_is_followed_to_its_first_page() -> None:
    assert 0 < first_operation_s({}) < 120


def test_a_report_over_vhost_user_is_timed() -> None:
    name = "vhost_user.report_overhead_us"
    found = measure_report([name], NullObserver(), repeats=5)[name]
    assert len(found.values) == 5
    assert "bare discards" in found.note


def test_an_idle_service_is_watched() -> None:
    name = "vhost_user.idle_cpu_percent"
    found = measure_idle([name], NullObserver(), rest_s=0.1, idle_s=0.3, repeats=2)[name]
    assert len(found.values) == 2 and all(value >= 0 for value in found.values)
