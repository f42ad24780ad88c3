"""Recorded traces as a workload."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.scenario import SCENARIOS, load_scenario
from emulator.errors import ConfigError
from emulator.observer import NullObserver
from emulator.runner import run
from emulator.summary import Summary
from emulator.traces.compile import compile_replay
from emulator.traces.reader import read_trace
from emulator.workloads.replay import turns_of, with_blocks_before

EXCERPT = SCENARIOS / "data" / "compile-2g-excerpt.trace.zst"


def replay(tmp_path: Path, *settings: str) -> Summary:
    scenario = load_scenario("replay", [f'workload.trace="{EXCERPT}"', *settings])
    return run(scenario, output=tmp_path, observer=NullObserver())


@given(st.lists(st.integers(0, 5)))
def test_a_turn_is_how_many_came_before_on_the_slot(slots: list[int]) -> None:
    expected = [slots[:index].count(slot) for index, slot in enumerate(slots)]
    assert turns_of(np.array(slots, np.uint32)).tolist() == expected


def test_every_operation_is_applied_and_what_is_live_at_the_end_is_in_use(tmp_path: Path) -> None:
    program = compile_replay(read_trace(EXCERPT), cpus=2, warm=True)
    summary = replay(tmp_path, "workload.warm=true", "workload.idle=0s")
    figures = summary.workload
    operations = program.statistics.operations + len(program.before)
    assert figures["events_applied"] == operations
    assert figures["events_skipped"] == 0
    assert figures["end_bytes"] == program.statistics.end_pages * 4096
    assert summary.oracle.violations == 0
    assert summary.vcpus.operations == operations
    # Freed pages were verified when they were freed, the others at the end.
    freed = sum(1 << int(o["order"]) for o in program.operations if o["kind"] == 1)
    assert summary.oracle.pages_checked == freed + program.statistics.end_pages


def test_virtual_time_is_the_traces_own(tmp_path: Path) -> None:
    span_s = read_trace(EXCERPT).statistics.span_s
    whole = replay(tmp_path, "workload.warm=false", "workload.idle=0s")
    fast = replay(tmp_path, "workload.warm=false", "workload.idle=0s", "workload.speed=4")
    assert whole.virtual_s == pytest.approx(span_s, abs=0.05)
    assert fast.virtual_s == pytest.approx(span_s / 4, abs=0.05)


def test_blocks_from_before_the_trace_come_first() -> None:
    program = compile_replay(read_trace(EXCERPT), cpus=2, warm=True)
    assert len(program.before)
    whole = with_blocks_before(program)
    count = len(program.before)
    assert (whole.operations["kind"][:count] == 0).all()
    assert (whole.operations["slot"][:count] == program.before["slot"]).all()
    assert (whole.operations[count:] == program.operations).all()


def test_a_guest_that_is_too_small_for_the_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"in use at once, too much .* use --memory \d+MiB"):
        replay(tmp_path, "guest.memory=12MiB")


@pytest.mark.slow
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_processes_apply_all_of_it_and_wait_for_each_other(tmp_path: Path, vcpus: int) -> None:
    summary = replay(
        tmp_path,
        f"guest.vcpus={vcpus}",
        "run.launcher=processes",
        "workload.warm=true",
        "workload.idle=0s",
    )
    program = compile_replay(read_trace(EXCERPT), cpus=vcpus, warm=True)
    assert summary.workload["events_applied"] == program.statistics.operations + len(program.before)
    assert summary.workload["events_skipped"] == 0
    assert summary.oracle.violations == 0
