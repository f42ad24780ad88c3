"""The emulated guest against a recorded User-Mode Linux: passes after each free, and their bytes.

`uml-512m` is a guest of 512 MiB with blocks of 4 MiB that fills 85 % of its free memory and removes
it, three times.  The emulated one has its watermarks, its free memory and its pace; when passes
come and what they report was not given to it.  The recorded guest's smaller free blocks are filled
before its whole ones, which is why bytes are held to 5 % and not to a block.
"""

import csv
import re
from itertools import groupby
from pathlib import Path

import pytest

from emulator.config.guest import GuestConfig, ZoneConfig
from emulator.config.scenario import ROOT, MechanismConfig, RunConfig, Scenario, WorkloadConfig
from emulator.observer import NullObserver
from emulator.runner import run
from emulator.summary import SeriesRow
from emulator.uml.truth import BYTES_PERCENT_MAX, TIME_S_MAX, Seen, reports_between

RECORDINGS = ROOT.parent / "shared" / "reference" / "linux"
MIB = 1 << 20
APART_S = 0.3  # Reports of one pass follow each other at once; passes are 2 s apart.
ATTACHED_S_MAX = 0.5  # How long after the log's beginning the guest attached, at most.

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings of a real guest are not here"
)


class Rows(NullObserver):
    """Keeps the rows of a run."""

    def __init__(self) -> None:
        self.rows: list[SeriesRow] = []

    def sample(self, row: SeriesRow) -> None:
        self.rows.append(row)


def passes(seen: Seen) -> list[tuple[float, int]]:
    """When each pass began, and what it reported."""
    found: list[tuple[float, int]] = []
    last_s = float("-inf")
    for at_s, size in zip(seen.times_s, seen.reported_bytes, strict=True):
        if at_s - last_s > APART_S:
            found.append((at_s, 0))
        found[-1] = (found[-1][0], found[-1][1] + size)
        last_s = at_s
    return found


def marks(name: str) -> list[float]:
    """When the recorded guest said so, seconds of its log."""
    log = (RECORDINGS / "uml-512m.log").read_text()
    return [float(at) for at in re.findall(rf"([\d.]+) MARK \S+ {name}", log)]


def recorded() -> list[list[tuple[float, int]]]:
    """Its passes after each free, by the clock of its reports."""
    with (RECORDINGS / "uml-512m.reports.csv").open(newline="") as file:
        rows = [
            (row["report"], float(row["time_s"]), int(row["len"])) for row in csv.DictReader(file)
        ]
    reports = [list(group) for _, group in groupby(rows, key=lambda row: row[0])]
    seen = Seen(
        times_s=[report[0][1] for report in reports],
        reported_bytes=[sum(size for *_, size in report) for report in reports],
    )
    begins = marks("full")
    ends = [*begins[1:], float("inf")]
    found = passes(seen)
    return [
        [one for one in found if begin - ATTACHED_S_MAX <= one[0] < end - ATTACHED_S_MAX]
        for begin, end in zip(begins, ends, strict=True)
    ]


def emulated_scenario() -> Scenario:
    log = (RECORDINGS / "uml-512m.log").read_text()
    free_kib = int(re.findall(r"MemFree: +(\d+) kB", log)[0])
    named = {name: int(re.findall(rf" {name} +(\d+)", log)[0]) for name in ("min", "low", "high")}
    filled_mib = [int(mib) for mib in re.findall(r"fill\d (\d+)", log)]
    fills, fulls = marks(r"fill\d"), marks("full")
    fill_s = sum(full - fill for fill, full in zip(fills, fulls, strict=True)) / len(fills)
    filled_bytes = sum(filled_mib) * MIB / len(filled_mib)
    zone = ZoneConfig(
        name="NORMAL",
        memory_bytes=512 * MIB,
        reserved_bytes=512 * MIB - free_kib * 1024,
        watermark_min=named["min"],
        watermark_low=named["low"],
        watermark_high=named["high"],
    )
    workload = {
        "fraction": filled_bytes / (free_kib * 1024),
        "iterations": len(fills),
        "delay": "8s",
        "idle": "14s",
        "rate": f"{round(filled_bytes / fill_s)}/s",
    }
    return Scenario(
        question="Does the emulated guest report what the recorded one did?",
        guest=GuestConfig(
            memory_bytes=512 * MIB,
            vcpus=1,
            ram="accounted",
            pageblock_order=10,
            thp=False,
            zones=(zone,),
        ),
        mechanism=MechanismConfig(name="page_reporting"),
        workload=WorkloadConfig(kind="memhog", parameters=workload),
        run=RunConfig(launcher="virtual", sample_s=0.005),
    )


def test_passes_and_bytes_are_those_of_a_real_kernel(tmp_path: Path) -> None:
    rows = Rows()
    summary = run(emulated_scenario(), output=tmp_path, observer=rows)
    assert summary.oracle.violations == 0
    phases = {phase.name: phase for phase in summary.phases}
    ours = [
        passes(reports_between(rows.rows, phases[f"free {n}"].start_s, phases[f"idle {n}"].end_s))
        for n in (1, 2, 3)
    ]
    theirs = recorded()
    assert [len(p) for p in ours] == [len(p) for p in theirs] == [2, 2, 2]
    apart_s = []
    for full_s, our, their in zip(marks("full"), ours, theirs, strict=True):
        reported, expected = (sum(size for _, size in found) for found in (our, their))
        assert abs(reported - expected) <= expected * BYTES_PERCENT_MAX / 100
        assert our[0][1] == their[0][1] == 256 * MIB  # Two full reports: the budget of a pass.
        apart_s += [a - (b - full_s) for (a, _), (b, _) in zip(our, their, strict=True)]
    # The reports' clock begins with the attaching, somewhere in the log's first half second: some
    # such instant must fit all passes.
    assert max(apart_s) - TIME_S_MAX <= ATTACHED_S_MAX
    assert min(apart_s) + TIME_S_MAX >= 0
    assert max(apart_s) - min(apart_s) <= 2 * TIME_S_MAX
