"""One scenario with several numbers of vCPUs, under several mechanisms: will-it-scale's table.

The runs of one number of vCPUs are taken in turns, and every second repetition in the opposite
order (A B, B A, ...), so that a drift of the machine does not look like a mechanism.  Mechanisms
are compared within a repetition; the spread is that of these differences.
"""

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from emulator.compare.candidate import Candidate, read_candidate
from emulator.config.guest import LARGEST_BLOCK_BYTES
from emulator.config.published import Published
from emulator.config.requirements import require_memory
from emulator.config.scenario import Scenario
from emulator.config.units import write_size
from emulator.errors import ConfigError
from emulator.machine_check import available_bytes
from emulator.observer import Observer
from emulator.published import is_under, mechanism_text
from emulator.report.wording import counted
from emulator.runner import run
from emulator.summary import SeriesRow, Summary
from emulator.workloads.registry import load_workload

BASELINE: Final = "off"
_OWN_FIGURE: Final = "pages_per_s"
_GROWTH: Final = 1.5


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of the values of all repetitions."""

    median: float
    min: float
    max: float


class ScaleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One number of vCPUs under one mechanism."""

    vcpus: int
    mechanism: str
    memory_bytes: int
    per_s: Spread | None  # All vCPUs together; None: not measured.
    per_s_per_vcpu: float | None
    difference_percent: Spread | None  # To the baseline in the same repetition.
    failed_allocations: int  # In sum over all repetitions, as `violations`.
    violations: int
    values: list[float | None]  # One a repetition.
    differences: list[float | None]


class ScalePublished(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a source, beside the rows that it is about; without one, `why`."""

    published: Published
    rows: list[ScaleRow] = []
    why: str = ""


class ScaleTable(msgspec.Struct, frozen=True, kw_only=True):
    """`scale --json`."""

    scenario: str
    figure: str  # What is counted, as in summary.json.
    launcher: str
    ram: str
    repeats: int
    baseline: str | None  # None: one mechanism only.
    rows: list[ScaleRow]
    notes: list[str]
    published: list[ScalePublished] = []


class _OneRun:
    """What a run tells, under the name of the run; its samples are not shown."""

    def __init__(self, title: str, observer: Observer) -> None:
        self._title = title
        self._observer = observer

    def phase(self, text: str) -> None:
        self._observer.phase(f"{self._title}: {text}")

    def sample(self, row: SeriesRow) -> None:
        pass

    def event(self, text: str) -> None:
        self._observer.event(f"{self._title}: {text}")


def run_scale(
    scenario: Scenario,
    vcpus: Sequence[int],
    mechanisms: Sequence[str],
    repeats: int,
    observer: Observer,
) -> ScaleTable:
    """Run `scenario` for each of `vcpus` under each of `mechanisms`, `repeats` times.

    mechanisms: as `--mechanism` names them, also with parameters

    The baseline is `off` if it is among the mechanisms, else the first of them.  A guest whose
    memory is too small for so many vCPUs gets more, which a note says.  Raises as `runner.run`.
    """
    candidates = [read_candidate(text, scenario) for text in mechanisms]
    under = {one.label: _under(scenario, one) for one in candidates}
    baseline = BASELINE if BASELINE in under else candidates[0].label
    if scenario.run.launcher == "processes":
        from emulator.launch.fork_server import start_fork_server

        start_fork_server(*under.values())
    rows: list[ScaleRow] = []
    notes: list[str] = []
    figures: set[str] = set()
    for count in vcpus:
        memory_bytes = _memory_for(scenario, count)
        if memory_bytes != scenario.guest.memory_bytes:
            notes.append(
                f"{counted(count, 'vCPU')} had a guest of {write_size(memory_bytes)}: the "
                f"scenario's {write_size(scenario.guest.memory_bytes)} are too small for them"
            )
        sized = {label: _sized(one, count, memory_bytes) for label, one in under.items()}
        summaries = _run_in_turns(sized, repeats, observer)
        figures |= {figure_of(one)[0] for each in summaries.values() for one in each}
        rows += _rows(summaries, baseline, memory_bytes)
    figure = ", ".join(sorted(figures))
    return ScaleTable(
        scenario=scenario.name,
        figure=figure,
        launcher=scenario.run.launcher,
        ram=scenario.guest.ram,
        repeats=repeats,
        baseline=baseline if len(under) > 1 else None,
        rows=rows,
        notes=notes,
        published=[
            _beside(published, under, rows, figure=figure, baseline=baseline)
            for published in scenario.published
        ],
    )


def figure_of(summary: Summary) -> tuple[str, float | None]:
    """The figure that scales: its name in the summary, and its value."""
    if _OWN_FIGURE in summary.workload:
        return f"workload.{_OWN_FIGURE}", summary.workload[_OWN_FIGURE]
    return "vcpus.operations_per_s", summary.vcpus.operations_per_s


def differences(
    values: Sequence[float | None], baseline: Sequence[float | None]
) -> list[float | None]:
    """Per cent that each value is above the baseline's of the same repetition."""
    return [
        None if value is None or not base else (value / base - 1) * 100
        for value, base in zip(values, baseline, strict=True)
    ]


def spread(values: Sequence[float | None]) -> Spread | None:
    """Of what was measured; None: nothing was."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(median=statistics.median(found), min=min(found), max=max(found))


def _under(scenario: Scenario, candidate: Candidate) -> Scenario:
    return msgspec.structs.replace(scenario, mechanism=candidate.mechanism)


def _memory_for(scenario: Scenario, vcpus: int) -> int:
    """The scenario's memory, or as much more as its workload needs with so many vCPUs."""
    memory_bytes = scenario.guest.memory_bytes
    while True:
        sized = _sized(scenario, vcpus, memory_bytes)
        require_memory(sized, available_bytes=available_bytes())
        workload = load_workload(
            sized.workload.kind, sized.workload.parameters, where=sized.where("workload")
        )
        try:
            workload.prepare(sized, lambda _: None)
        except ConfigError:
            # With the scenario's own number of vCPUs, more memory is up to whoever wrote it.
            if vcpus <= scenario.guest.vcpus or scenario.guest.zones:
                raise
            blocks = math.ceil(memory_bytes * _GROWTH / LARGEST_BLOCK_BYTES)
            memory_bytes = blocks * LARGEST_BLOCK_BYTES
            continue
        return memory_bytes


def _sized(scenario: Scenario, vcpus: int, memory_bytes: int) -> Scenario:
    guest = msgspec.structs.replace(scenario.guest, vcpus=vcpus, memory_bytes=memory_bytes)
    return msgspec.structs.replace(scenario, guest=guest)


def _run_in_turns(
    scenarios: Mapping[str, Scenario], repeats: int, observer: Observer
) -> dict[str, list[Summary]]:
    """The summaries by the mechanism's label, as `scenarios`, one a repetition."""
    found: dict[str, list[Summary]] = {label: [] for label in scenarios}
    turns = list(scenarios.items())
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        for repeat in range(repeats):
            for label, one in turns if repeat % 2 == 0 else turns[::-1]:
                vcpus = counted(one.guest.vcpus, "vCPU")
                title = f"{vcpus}, {Path(label).name}, {repeat + 1} of {repeats}"
                observer.phase(title)
                summary = run(one, output=Path(folder), observer=_OneRun(title, observer))
                found[label].append(summary)
    return found


def _rows(summaries: dict[str, list[Summary]], baseline: str, memory_bytes: int) -> list[ScaleRow]:
    values = {name: [figure_of(one)[1] for one in each] for name, each in summaries.items()}
    rows = []
    for name, each in summaries.items():
        vcpus = each[0].guest.vcpus or 1
        per_s = spread(values[name])
        compared = [] if name == baseline else differences(values[name], values[baseline])
        rows.append(
            ScaleRow(
                vcpus=vcpus,
                mechanism=name,
                memory_bytes=memory_bytes,
                per_s=per_s,
                per_s_per_vcpu=None if per_s is None else per_s.median / vcpus,
                difference_percent=spread(compared),
                failed_allocations=sum(one.vcpus.failed_allocations or 0 for one in each),
                violations=sum(one.oracle.violations or 0 for one in each),
                values=values[name],
                differences=compared,
            )
        )
    return rows


def _beside(
    published: Published,
    scenarios: Mapping[str, Scenario],
    rows: Sequence[ScaleRow],
    *,
    figure: str,
    baseline: str,
) -> ScalePublished:
    names = [label for label, one in scenarios.items() if is_under(published, one.mechanism)]
    found = [row for row in rows if published.vcpus in (None, row.vcpus) and row.mechanism in names]
    if published.metric is None:
        why = "the emulator has no such figure"
    elif published.metric != figure:
        why = f"this table is of {figure}"
    elif not names:
        why = f"{mechanism_text(published)} was not run"
    elif not found:
        why = f"it takes {counted(published.vcpus or 0, 'vCPU')}"
    elif published.against not in (None, baseline):
        why = f"this table's differences are to {baseline}"
    else:
        return ScalePublished(published=published, rows=found)
    return ScalePublished(published=published, why=why)
