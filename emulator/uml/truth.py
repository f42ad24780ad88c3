"""The truth check: the emulated guest beside a real Linux, doing the same.

The real guest runs first.  The emulated one then gets its zone (pages, watermarks, what was free),
its load (bytes, pace, pauses) and the speed of its discards, and runs in virtual time.  What is
compared was not given to it: how many reports follow each free, of how many bytes, and when.

The number of reports is that of started 32s of blocks: where a fill frees about 32, 64 or 96 of
them, a block that stays in use for a reason of its own decides it, and a real guest differs from
itself.  The scenario's 576 MiB are far from such a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from emulator.config.guest import GuestConfig, ZoneConfig
from emulator.config.host import HostConfig
from emulator.config.scenario import (
    MechanismConfig,
    RunConfig,
    Scenario,
    WorkloadConfig,
)
from emulator.config.units import PAGE_BYTES
from emulator.errors import RunFailed
from emulator.observer import NullObserver, Observer
from emulator.runner import run
from emulator.summary import SeriesRow, Summary
from emulator.uml.memhog_task import MemhogRun
from emulator.uml.run_task import observe_uml

BYTES_PERCENT_MAX: Final = 5.0
TIME_S_MAX: Final = 0.3
_SAMPLE_S: Final = 0.005  # Of virtual time: no two reports within it, at the discards' speed.


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What followed one free: for each report, when it was given back (from the free's beginning),
    and its bytes."""

    times_s: list[float]
    reported_bytes: list[int]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The same free in both guests."""

    real: Seen
    emulated: Seen

    @property
    def bytes_percent(self) -> float:
        """How much more the emulated guest reported, percent of what the real one did."""
        real, emulated = sum(self.real.reported_bytes), sum(self.emulated.reported_bytes)
        return 100.0 * (emulated - real) / real if real else 100.0 * bool(emulated)

    @property
    def apart_s_max(self) -> float | None:
        """The most that two reports of the same number are apart; None if there are not as many."""
        if len(self.real.times_s) != len(self.emulated.times_s):
            return None
        both = zip(self.real.times_s, self.emulated.times_s, strict=True)
        return max((abs(a - b) for a, b in both), default=0.0)

    @property
    def holds(self) -> bool:
        """Whether both did the same, within the limits."""
        apart_s = self.apart_s_max
        alike = abs(self.bytes_percent) <= BYTES_PERCENT_MAX
        return apart_s is not None and apart_s <= TIME_S_MAX and alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The check's result."""

    pairs: list[Pair]
    real: Summary
    emulated: Summary
    scenario: Scenario  # The emulated guest's.

    @property
    def holds(self) -> bool:
        """Whether every free was followed by the same, and nothing was lost in either guest."""
        sound = not self.real.oracle.violations and not self.emulated.oracle.violations
        return sound and all(pair.holds for pair in self.pairs)


class _Rows(NullObserver):
    def __init__(self) -> None:
        self.rows: list[SeriesRow] = []

    def sample(self, row: SeriesRow) -> None:
        """Keep it."""
        self.rows.append(row)


def check_truth(scenario: Scenario, *, output: Path, observer: Observer) -> Truth:
    """Run `scenario`, of launcher "uml", and its emulated counterpart.

    Raises what a run raises; RunFailed if the real guest reported nothing.
    """
    real, hog = observe_uml(scenario, output=output, observer=observer)
    if not all(iteration.reports for iteration in hog.iterations):
        raise RunFailed("the real guest reported nothing after a free; give it more memory or idle")
    counterpart = emulated_scenario(scenario, hog)
    observer.phase("the emulated guest, in virtual time")
    rows = _Rows()
    emulated = run(counterpart, output=output, observer=rows)
    frees = [phase.start_s for phase in emulated.phases if phase.name.startswith("free")]
    ends = [phase.end_s for phase in emulated.phases if phase.name.startswith("idle")]
    pairs = [
        Pair(
            real=Seen(
                times_s=[round(it.done_s - iteration.free_s, 6) for it in iteration.reports],
                reported_bytes=[it.claimed_bytes for it in iteration.reports],
            ),
            emulated=reports_between(rows.rows, free_s, end_s),
        )
        for iteration, free_s, end_s in zip(hog.iterations, frees, ends, strict=True)
    ]
    return Truth(pairs=pairs, real=real, emulated=emulated, scenario=counterpart)


def emulated_scenario(scenario: Scenario, hog: MemhogRun) -> Scenario:
    """The same guest and load, as the real one has shown them."""
    facts, iterations = hog.facts, hog.iterations
    assert facts is not None and hog.started_s is not None
    filled_bytes = sum(i.filled_bytes for i in iterations) / len(iterations)
    fill_s = sum(i.full_s - i.fill_s for i in iterations) / len(iterations)
    idles_s = [after.fill_s - before.freed_s for before, after in pairwise(iterations)]
    zone = ZoneConfig(
        name="NORMAL",
        memory_bytes=facts.spanned * PAGE_BYTES,
        reserved_bytes=(facts.spanned - facts.free_pages) * PAGE_BYTES,
        watermark_min=facts.min,
        watermark_low=facts.low,
        watermark_high=facts.high,
    )
    return Scenario(
        question="Does the emulated guest report what a real Linux does, and when it does?",
        name=f"{scenario.name}-emulated",
        guest=GuestConfig(
            memory_bytes=zone.memory_bytes,
            vcpus=scenario.guest.vcpus,
            ram="accounted",
            pageblock_order=scenario.guest.pageblock_order,
            thp=scenario.guest.thp,
            zones=(zone,),
        ),
        mechanism=MechanismConfig(
            name=scenario.mechanism.name, parameters=scenario.mechanism.parameters
        ),
        workload=WorkloadConfig(
            kind="memhog",
            parameters={
                "fraction": filled_bytes / (facts.free_pages * PAGE_BYTES),
                "iterations": len(iterations),
                "delay": f"{round(1000 * (iterations[0].fill_s - hog.started_s))}ms",
                "idle": f"{round(1000 * (idles_s[0] if idles_s else hog.idle_s))}ms",
                "rate": f"{round(filled_bytes / fill_s)}/s",
            },
        ),
        host=HostConfig(discard_bytes_per_s=hog.discard_bytes_per_s),
        run=RunConfig(launcher="virtual", seed=scenario.run.seed, sample_s=_SAMPLE_S),
    )


def reports_between(rows: Sequence[SeriesRow], begin_s: float, end_s: float) -> Seen:
    """From the growth of what was reported, sample by sample."""
    times_s, sizes = [], []
    for before, after in pairwise(row for row in rows if begin_s <= row.time_s <= end_s):
        count = (after.reports or 0) - (before.reports or 0)
        grown = max(0, (after.guest_reported_bytes or 0) - (before.guest_reported_bytes or 0))
        times_s += [round(float(after.time_s - begin_s), 6)] * count
        sizes += [grown // count] * count if count else []
    return Seen(times_s=times_s, reported_bytes=sizes)
