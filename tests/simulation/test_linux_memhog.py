"""The emulated guest against a real one: the staircase in which memory comes back.

The recording (`memhog-1g`) is of Linux 6.1 with 1 GiB; the scenario `linux_memhog` has that guest's
zones, watermarks, free memory and pace.  What is compared was not fitted: the sizes of the steps
and their times follow from the allocator and from page_reporting's constants.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from emulator.config.scenario import ROOT, load_scenario
from emulator.observer import NullObserver
from emulator.runner import run
from emulator.summary import SeriesRow

RECORDINGS = ROOT.parent / "shared" / "reference" / "linux"
MIB = 1 << 20
GUEST_MIB = 1024
STEP_MIB_MIN = 20  # Smaller drops are the guest's own housekeeping.
STEP_S_MAX = 0.35  # A drop that two samples saw is one step.


class Step(NamedTuple):
    """Memory that came back at once."""

    at_s: float
    mib: float


class Sampling(NullObserver):
    """Keeps the rows of a run."""

    def __init__(self) -> None:
        self.rows: list[SeriesRow] = []

    def sample(self, row: SeriesRow) -> None:
        self.rows.append(row)


def steps(curve: Sequence[tuple[float, float]]) -> list[Step]:
    """Drops of residency, those of neighbouring samples joined; the time is the last one's."""
    found: list[Step] = []
    for (_, before), (at_s, after) in pairwise(curve):
        drop = before - after
        if drop < 5:
            continue
        if found and at_s - found[-1].at_s < STEP_S_MAX:
            found[-1] = Step(at_s, found[-1].mib + drop)
        else:
            found.append(Step(at_s, drop))
    return [step for step in found if step.mib >= STEP_MIB_MIN]


def recorded() -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The recording's curve, and for each free the span in which it happened: from the peak of
    residency to the mark that the guest printed when it was done."""
    lines = (RECORDINGS / "memhog-1g.rss.csv").read_text().splitlines()[1:]
    curve = [(float(t), int(b) / MIB) for t, b in (line.split(",") for line in lines)]
    log = (RECORDINGS / "memhog-1g.log").read_text()
    fills = [float(t) for t in re.findall(r"([\d.]+) MARK \S+ fill", log)]
    freed = [float(t) for t in re.findall(r"([\d.]+) MARK \S+ freed", log)]
    spans = []
    for begin, mark in zip(fills, freed, strict=True):
        peak = max(mib for t, mib in curve if begin <= t <= mark + 0.1)
        reached = next(t for t, mib in curve if t >= begin and mib >= peak - 1)
        spans.append((min(reached, mark), mark))
    return curve, spans


def after_each(found: list[Step], begins: list[float]) -> list[list[Step]]:
    ends = [*begins[1:], float("inf")]
    return [
        [s for s in found if begin < s.at_s < end] for begin, end in zip(begins, ends, strict=True)
    ]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings of a real guest are not here")
def test_memory_comes_back_in_the_steps_of_a_real_kernel(tmp_path: Path) -> None:
    sampling = Sampling()
    summary = run(load_scenario("linux_memhog"), output=tmp_path, observer=sampling)
    assert summary.oracle.violations == 0
    mine = [(row.time_s, (row.resident_bytes or 0) / MIB) for row in sampling.rows]
    frees = [phase.start_s for phase in summary.phases if phase.name.startswith("free")]
    curve, spans = recorded()
    theirs = after_each(steps(curve), [begin for begin, _ in spans])
    ours = after_each(steps(mine), frees)
    assert [len(s) for s in ours] == [len(s) for s in theirs] == [4, 4, 4]
    for free_s, (earliest_s, latest_s), our, their in zip(frees, spans, ours, theirs, strict=True):
        for a, b in zip(our, their, strict=True):
            assert abs(a.mib - b.mib) <= 0.03 * GUEST_MIB
        # When the real guest freed is known within a span: some instant of it must fit all steps.
        delays = [(b.at_s - (a.at_s - free_s)) for a, b in zip(our, their, strict=True)]
        assert max(delays) - 0.25 <= latest_s
        assert min(delays) + 0.25 >= earliest_s
        assert max(delays) - min(delays) <= 2 * 0.25
