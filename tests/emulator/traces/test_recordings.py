"""Recordings of a real Linux guest: the excerpt that comes along, and the whole ones if present."""

from pathlib import Path

import numpy as np
import pytest

from devices.memory.jit import interpreted
from emulator.traces.compile import compile_replay
from emulator.traces.layout import ALLOC
from emulator.traces.reader import read_trace

ROOT = Path(__file__).resolve().parents[3]
EXCERPT = ROOT / "scenarios" / "data" / "compile-2g-excerpt.trace.zst"
RECORDINGS = ROOT.parent / "shared" / "reference" / "linux"

pytestmark = pytest.mark.skipif(interpreted(), reason="too many lines for interpreted kernels")


def recording(name: str) -> Path:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not beside this repository")
    return path


def test_the_excerpt_is_what_its_description_says() -> None:
    trace = read_trace(EXCERPT)
    seen = trace.statistics
    assert (seen.format, seen.compression, seen.truncated) == ("ftrace", "zst", False)
    assert (seen.lines, seen.comment_lines, seen.events) == (30_012, 12, 30_000)
    assert (seen.allocations, seen.frees, seen.cpus) == (15_060, 14_940, 2)
    assert (seen.unreadable_lines, seen.lost_events, seen.backward_times) == (0, 0, 0)
    assert seen.span_s == pytest.approx(1.95462)
    assert EXCERPT.stat().st_size <= 200 * 1024
    huge = trace.events[trace.events["order"] == 9]
    assert np.count_nonzero(huge["kind"] == ALLOC) == 2


def test_the_excerpt_replays_warm_and_cold() -> None:
    trace = read_trace(EXCERPT)
    cold = compile_replay(trace, cpus=2, warm=False).statistics
    warm = compile_replay(trace, cpus=2, warm=True)
    assert (cold.operations, cold.preexisting_frees) == (30_000 - 1_073, 1_073)
    assert (warm.statistics.operations, warm.before.size) == (30_000, 1_073)
    assert (warm.statistics.start_pages, warm.statistics.peak_pages) == (1_077, 3_404)
    assert cold.end_pages == warm.statistics.end_pages == 1_206
    slots = np.zeros(warm.slots, np.int64)
    slots[warm.before["slot"]] = 1 << warm.before["order"].astype(np.int64)
    changes = 1 << warm.operations["order"].astype(np.int64)
    changes[warm.operations["kind"] != ALLOC] *= -1
    np.add.at(slots, warm.operations["slot"], changes)
    assert (slots.min() >= 0, slots.sum()) == (True, 1_206)


def test_a_whole_recording_reads_without_a_lost_line() -> None:
    seen = read_trace(recording("compile-2g.trace.zst")).statistics
    assert (seen.lines, seen.comment_lines, seen.unreadable_lines) == (681_063, 12, 0)
    assert (seen.allocations, seen.frees) == (355_408, 325_643)
    assert (seen.cpus, seen.pfn_max) == (2, 0x7FFCF)
    assert seen.span_s == pytest.approx(70.098372)


def test_a_whole_recording_is_compiled() -> None:
    trace = read_trace(recording("compile-2g.trace.zst"))
    seen = compile_replay(trace, cpus=2, warm=False).statistics
    assert seen.allocations == 355_408
    assert (seen.preexisting_frees, seen.unmatched_frees, seen.partial_frees) == (4_316, 1_324, 4)
    assert (seen.double_allocations, seen.spanning_frees) == (0, 0)
    assert (seen.peak_pages, seen.end_pages) == (51_080, 37_944)


def test_a_recording_of_one_cpu_reads() -> None:
    seen = read_trace(recording("page-fault1-2g.trace.zst")).statistics
    assert (seen.events, seen.cpus, seen.unreadable_lines) == (31_269, 1, 0)
