"""Values -> figures: median, spread, target, met or not; and the run over all series."""

import os
import statistics
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import msgspec

from emulator.bench.series import Measurement, Series, select
from emulator.errors import MachineLacks, RunFailed
from emulator.machine_check import describe_machine, describe_versions
from emulator.observer import Observer


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the two is given, or none."""

    at_most: float | None = None
    at_least: float | None = None


class ComparedTo(msgspec.Struct, frozen=True, kw_only=True):
    """As `series.Compared`."""

    who: str
    figure: float
    source: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One series; what was not measured is None, and `note` says why."""

    median: float | None
    min: float | None
    max: float | None
    n: int
    unit: str
    target: Target
    met: bool | None
    compared_to: ComparedTo | None
    how: str
    note: str
    values: list[float]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What changes while a benchmark runs: looked at before and after."""

    load_average: list[float]  # over 1, 5 and 15 minutes
    cache_line_round_trip_ns: float | None  # between two CPUs; None with one CPU
    distance: str | None  # "near" or "far", from the round trip


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """`bench --json`."""

    machine: dict[str, Any]
    versions: dict[str, str]
    before: Conditions
    after: Conditions
    series: dict[str, Figure]
    failures: list[str]  # of series that could not be measured


def figure(series: Series, measured: Measurement) -> Figure:
    """Statistics of one series."""
    values = list(measured.values)
    compared = series.compared_to
    median = statistics.median(values) if values else None
    return Figure(
        median=median,
        min=min(values, default=None),
        max=max(values, default=None),
        n=len(values),
        unit=series.unit,
        target=Target(at_most=series.at_most, at_least=series.at_least),
        met=None if median is None else series.met(median),
        compared_to=None
        if compared is None
        else ComparedTo(who=compared.who, figure=compared.figure, source=compared.source),
        how=series.how,
        note=measured.note,
        values=values,
    )


def conditions() -> Conditions:
    """How the machine is now; takes some milliseconds."""
    from emulator.bench.cache_line import distance_of, round_trip_ns

    found = round_trip_ns()
    return Conditions(
        load_average=[round(load, 2) for load in os.getloadavg()],
        cache_line_round_trip_ns=found,
        distance=distance_of(found),
    )


def run_bench(names: Iterable[str], observer: Observer) -> BenchResult:
    """Measure the series that start with one of `names` (all without any), one after another.

    ConfigError: no such series.  A series that fails is left out, with a line in `failures`.
    """
    chosen = select(names)
    observer.phase("looking at the machine")
    before = conditions()
    measured: dict[str, Figure] = {}
    failures: list[str] = []
    for group in _groups(chosen):
        title = ", ".join(one.name for one in group)
        observer.phase(f"measuring {title}")
        module, _, function = group[0].measure.partition(":")
        try:
            measure = getattr(import_module(module), function)
            found = measure([one.name for one in group], observer)
        except (MachineLacks, RunFailed) as error:
            failures.append(f"{title}: {error}")
            found = {one.name: Measurement((), str(error)) for one in group}
        measured |= {one.name: figure(one, found[one.name]) for one in group}
    return BenchResult(
        machine=describe_machine(),
        versions=describe_versions(),
        before=before,
        after=conditions(),
        series={one.name: measured[one.name] for one in chosen},
        failures=failures,
    )


def _groups(chosen: Sequence[Series]) -> list[list[Series]]:
    """Series that are measured together."""
    groups: dict[str, list[Series]] = {}
    for one in chosen:
        groups.setdefault(one.measure, []).append(one)
    return list(groups.values())
