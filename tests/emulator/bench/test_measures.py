"""What the series measure, on small guests: that it is done at all, and soundly; not how fast."""

import os
from pathlib import Path

import numpy as np
import pytest

from emulator.bench.alloc import measure_churn, measure_pairs
from emulator.bench.boot import measure_boot
from emulator.bench.cache_line import distance_of, round_trip_ns
from emulator.bench.commands import phases_of, resident_bytes
from emulator.bench.guest import boot_guest, layout_of, new_region, require_sound
from emulator.bench.kernels import bounce, churn, fill, free_all, meet, pairs
from emulator.bench.layout import MEETING
from emulator.bench.reclaim_task import would_discard
from emulator.bench.replay import RECORDING, write_long_trace
from emulator.config.guest import GuestConfig
from emulator.config.scenario import load_scenario
from emulator.errors import RunFailed
from emulator.guest.boot import boot
from emulator.machine import Machine
from emulator.observer import NullObserver
from emulator.traces.reader import read_trace

MIB = 1 << 20
SMALL = GuestConfig(memory_bytes=64 * MIB, vcpus=1, ram="accounted")


def test_every_loop_leaves_a_sound_allocator() -> None:
    with new_region(layout_of(SMALL), shared=False) as region:
        mm = boot_guest(SMALL, region)
        free_before = int(mm.zones["free_pages"].sum() + mm.pcps["count"].sum())
        held = np.zeros(SMALL.pages // 2, np.uint32)
        assert fill(mm, 0, held) == len(held)
        assert pairs(mm, 0, 0, 1000) == pairs(mm, 0, 9, 1000) == 1000
        random = np.array([1], np.uint64)
        assert churn(mm, 0, held, random, 20_000) == 20_000
        assert len(np.unique(held)) == len(held)
        assert random[0] not in (0, 1)
        require_sound(mm)
        free_all(mm, 0, held)
        require_sound(mm)
        assert int(mm.zones["free_pages"].sum() + mm.pcps["count"].sum()) == free_before
        del mm


def test_an_unsound_allocator_fails_the_benchmark() -> None:
    with new_region(layout_of(SMALL), shared=False) as region:
        mm = boot_guest(SMALL, region)
        mm.zones[0]["free_pages"] += 1
        with pytest.raises(RunFailed):
            require_sound(mm)
        del mm


def test_memory_that_is_used_up_ends_the_loops() -> None:
    with new_region(layout_of(SMALL), shared=False) as region:
        mm = boot_guest(SMALL, region)
        held = np.zeros(SMALL.pages, np.uint32)
        got = fill(mm, 0, held)
        assert 0 < got < SMALL.pages
        assert pairs(mm, 0, 9, 10) == 0
        del mm


def test_series_of_the_allocator_on_a_small_guest() -> None:
    names = ["alloc.order0_pair_ns", "alloc.order9_pair_ns"]
    found = measure_pairs(names, NullObserver(), memory_bytes=64 * MIB, count=1000)
    assert list(found) == names
    names = ["alloc.churn50_ns", "alloc.churn90_ns"]
    churned = measure_churn(names, NullObserver(), memory_bytes=64 * MIB, count=1000)
    assert list(churned) == names
    values = [one.values for one in (*found.values(), *churned.values())]
    assert all(len(one) == 9 and min(one) > 0 for one in values)


def test_booting_is_timed_and_its_memory_counted() -> None:
    names = ["guest.init_80gib_ms", "guest.metadata_bytes_per_page"]
    found = measure_boot(names, NullObserver(), memory_bytes=1 << 30)
    time_ms, size = (found[name] for name in names)
    assert len(time_ms.values) == 5 and min(time_ms.values) > 0
    assert "resident already" in time_ms.note
    # 16 bytes a page, 1/512 for the migratetypes, and sentinels: 66 KiB of a guest of 1 GiB.
    assert 16 + 1 / 512 < size.values[0] < 16.1


def test_who_waits_for_nobody_gives_up() -> None:
    assert not meet(np.zeros(1, MEETING), 2, 1000)
    assert meet(np.zeros(1, MEETING), 1, 1000)
    assert bounce(np.zeros(1, MEETING), 1, 1, 1000) == -1
    assert bounce(np.zeros(1, MEETING), 0, 1, 1000) >= 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_cache_line_goes_to_the_other_cpu_and_back() -> None:
    allowed = os.sched_getaffinity(0)
    found = round_trip_ns()
    assert found is not None and found > 0
    assert os.sched_getaffinity(0) == allowed
    assert (distance_of(150.0), distance_of(520.0), distance_of(None)) == ("near", "far", None)


def test_what_the_hinting_task_would_discard_is_all_free_memory_and_changes_nothing() -> None:
    changed = ["guest.vcpus=1", 'guest.memory="256MiB"', 'mechanism.delay="0s"']
    scenario = load_scenario("memhog", changed)
    with Machine.create(scenario, shared=False) as machine:
        mm, guest = machine.memory(), scenario.guest
        ram = machine.ram.view()
        boot(mm, ram, guest.all_zones, thp=True, pageblock_order=9, virtual=False)
        before = {name: array.copy() for name, array in machine.guest.items()}
        ranges = would_discard(machine)
        assert int(ranges["length"].sum()) == 256 * MIB
        assert all((before[name] == array).all() for name, array in machine.guest.items())
        del mm, ram


def test_a_long_trace_is_the_recording_over_and_over(tmp_path: Path) -> None:
    once = read_trace(RECORDING).statistics
    trace = tmp_path / "long.trace"
    write_long_trace(trace, 3)
    found = read_trace(trace).statistics
    assert (found.allocations, found.frees) == (3 * once.allocations, 3 * once.frees)
    assert found.unreadable_lines == 0
    assert found.comment_lines == once.comment_lines


def test_the_log_of_a_run_is_read_while_it_grows(tmp_path: Path) -> None:
    assert phases_of(tmp_path) == []
    whole = '{"wall_s": 0.1, "kind": "phase", "text": "running"}\n'
    event = '{"wall_s": 0.2, "kind": "event", "text": "vCPU 1 was killed"}\n'
    (tmp_path / "log.jsonl").write_text(whole + event + whole[:20])
    assert phases_of(tmp_path) == ["running"]


def test_memory_is_summed_over_a_session() -> None:
    assert resident_bytes(os.getsid(0)) > 10 * MIB  # We are in it.
    assert resident_bytes(-1) == 0
