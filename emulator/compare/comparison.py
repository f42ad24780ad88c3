"""A comparison as one document, `comparison.json`: every single value, and what follows from them.

The first mechanism is the baseline.  A figure that was not measured is None (`null`), never 0; a
pair counts for a figure only if both of its runs measured it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from emulator.capacity.capacities import CapacityOf
from emulator.compare.candidate import Candidate
from emulator.compare.design import PlannedRun, is_balanced
from emulator.compare.figures import FIGURES, VIOLATIONS, ComparedFigure, figures_of
from emulator.compare.measured import (
    CONFIDENCE,
    FigureOfMechanism,
    Values,
    difference_of,
    figure_of,
    pairs_of,
    value_of,
)
from emulator.compare.published import PublishedFigure, beside_comparison
from emulator.compare.statistics import PAIRS_MIN, each_of
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.summary import Summary, decode_document, lookup

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRun:
    """A run that was made: its folder, and what came of it: a summary or the reason why not."""

    planned: PlannedRun
    folder: Path
    summary: Summary | None = None
    failure: str | None = None


class ComparedMechanism(msgspec.Struct, frozen=True, kw_only=True):
    """A mechanism of the comparison; with a `failure` it was not run to the end of the plan."""

    label: str
    name: str
    parameters: dict[str, Any]
    violations: list[int | None]  # A repeat each: pages discarded while in use.
    own: dict[str, list[float | None]] = {}  # Figures of its own, a repeat each.
    failure: str | None = None


class FigureOfAll(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of all mechanisms, in their order."""

    metric: str
    better: str
    floor_fraction: float
    mechanisms: list[FigureOfMechanism]


class RunOfComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One run, in the order of time."""

    position: int
    repeat: int  # from 1
    mechanism: str
    seed: int
    folder: str
    summary: Summary | None = None
    failure: str | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`, schema 1."""

    schema: int = SCHEMA
    scenario: str
    question: str
    launcher: str
    memory_bytes: int
    vcpus: int
    ram: str
    repeats: int
    repeats_planned: int
    seeds: list[int]
    is_balanced: bool  # Positions and neighbours; see `design`.
    confidence: float  # Of all intervals of one mechanism together ...
    intervals: int  # ... which are at most so many, ...
    confidence_each: float  # ... and hence of each.
    mechanisms: list[ComparedMechanism]
    figures: list[FigureOfAll]
    published: list[PublishedFigure] = []
    capacity: list[CapacityOf] = []
    runs: list[RunOfComparison] = []
    manifest: dict[str, Any] = {}

    @property
    def baseline(self) -> ComparedMechanism:
        """The mechanism that the others are compared with."""
        return self.mechanisms[0]

    @property
    def is_sound(self) -> bool:
        """Whether every run ended, and none had a page discarded while in use."""
        return not any(m.failure or any(filter(None, m.violations)) for m in self.mechanisms)

    def figure(self, metric: str) -> FigureOfAll:
        """The figure with this path; KeyError if it is not compared."""
        for figure in self.figures:
            if figure.metric == metric:
                return figure
        raise KeyError(metric)


def compare(
    scenario: Scenario,
    candidates: Sequence[Candidate],
    runs: Sequence[MadeRun],
    *,
    folder: Path,
    repeats_planned: int,
    manifest: Mapping[str, Any],
) -> Comparison:
    """What the runs say.  Every run's folder lies beneath `folder`."""
    repeats = max((run.planned.repeat for run in runs), default=-1) + 1
    figures = figures_of(scenario)
    values = [
        _values_of(runs, treatment, repeats, figure.metric)
        for figure in figures
        for treatment in range(len(candidates))
    ]
    rows = [values[i : i + len(candidates)] for i in range(0, len(values), len(candidates))]
    intervals = _intervals_of_each(rows)
    confidence_each = each_of(CONFIDENCE, intervals)

    def values_of(treatment: int, metric: str) -> Values:
        return _values_of(runs, treatment, repeats, metric)

    ended = sum(run.summary is not None for run in runs)
    is_complete = ended == repeats * len(candidates)
    return Comparison(
        scenario=scenario.name,
        question=scenario.question,
        launcher=scenario.run.launcher,
        memory_bytes=scenario.guest.memory_bytes,
        vcpus=scenario.guest.vcpus,
        ram=scenario.guest.ram,
        repeats=repeats,
        repeats_planned=repeats_planned,
        seeds=[scenario.run.seed + repeat for repeat in range(repeats)],
        is_balanced=is_balanced(len(candidates), repeats) and is_complete,
        confidence=CONFIDENCE,
        intervals=intervals,
        confidence_each=confidence_each,
        mechanisms=[_mechanism(runs, n, repeats, c) for n, c in enumerate(candidates)],
        figures=[
            _figure(figure, row, confidence_each) for figure, row in zip(figures, rows, strict=True)
        ],
        published=beside_comparison(scenario, candidates, values_of, figures, confidence_each),
        runs=[_run(run, candidates, folder) for run in runs],
        manifest=dict(manifest),
    )


def to_json(comparison: Comparison) -> str:
    """The text of `comparison.json`, indented."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode()


def from_json(text: str | bytes, *, where: str = "comparison.json") -> Comparison:
    """A comparison from its text.

    Raises `ConfigError` that begins with `where`: no JSON, another schema, missing or bad figures.
    """
    comparison = decode_document(text, Comparison, SCHEMA, where=where)
    counts = {len(comparison.mechanisms), *(len(f.mechanisms) for f in comparison.figures)}
    if len(counts) != 1 or counts == {0} or not comparison.figures:
        raise ConfigError(f"{where}: damaged: every figure must be of every mechanism")
    held = {figure.metric for figure in comparison.figures}
    for figure in FIGURES:
        if figure.metric not in held:
            raise ConfigError(f"{where}: has no {figure.metric}: damaged, or of another version")
    return comparison


def _values_of(runs: Sequence[MadeRun], treatment: int, repeats: int, metric: str) -> Values:
    values: list[float | None] = [None] * repeats
    for run in runs:
        if run.planned.treatment == treatment and run.summary is not None:
            values[run.planned.repeat] = value_of(run.summary, metric)
    return values


def _all_pairs(row: Sequence[Values]) -> Iterator[list[tuple[float, float]]]:
    for other in row[1:]:
        yield pairs_of(row[0], other)


def _intervals_of_each(rows: Sequence[Sequence[Values]]) -> int:
    """The most intervals that any mechanism has."""
    counts = [0] * (len(rows[0]) - 1)
    for row in rows:
        for number, pairs in enumerate(_all_pairs(row)):
            counts[number] += len(pairs) >= PAIRS_MIN
    return max(counts)


def _mechanism(
    runs: Sequence[MadeRun], treatment: int, repeats: int, candidate: Candidate
) -> ComparedMechanism:
    violations: list[int | None] = [None] * repeats
    own: dict[str, list[float | None]] = {}
    failure = None
    for run in runs:
        if run.planned.treatment == treatment:
            failure = failure or run.failure
            if run.summary is not None:
                for name, value in (run.summary.hinting.mechanism or {}).items():
                    if isinstance(value, int | float):
                        own.setdefault(name, [None] * repeats)[run.planned.repeat] = value
                violations[run.planned.repeat] = lookup(run.summary, VIOLATIONS)
    return ComparedMechanism(
        label=candidate.label,
        name=candidate.mechanism.name,
        parameters=candidate.mechanism.parameters,
        violations=violations,
        own=own,
        failure=failure,
    )


def _figure(figure: ComparedFigure, row: Sequence[Values], confidence: float) -> FigureOfAll:
    differences = [None, *(difference_of(figure, pairs, confidence) for pairs in _all_pairs(row))]
    return FigureOfAll(
        metric=figure.metric,
        better=figure.better,
        floor_fraction=figure.floor_fraction,
        mechanisms=[
            figure_of(values, difference)
            for values, difference in zip(row, differences, strict=True)
        ],
    )


def _run(run: MadeRun, candidates: Sequence[Candidate], folder: Path) -> RunOfComparison:
    return RunOfComparison(
        position=run.planned.position,
        repeat=run.planned.repeat + 1,
        mechanism=candidates[run.planned.treatment].label,
        seed=run.planned.seed,
        folder=str(run.folder.relative_to(folder)),
        summary=run.summary,
        failure=run.failure,
    )
