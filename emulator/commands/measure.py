"""`scale` and `bench`: series of numbers, on this machine."""

import csv
import io
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from emulator.commands.options import (
    MechanismName,
    ScenarioName,
    VcpuCounts,
    changing_options,
    overrides,
)
from emulator.commands.registries import require_mechanism
from emulator.commands.run import require_runnable
from emulator.commands.table import aligned
from emulator.compare.candidate import Candidate, read_candidate
from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError
from emulator.report.wording import NOT_MEASURED, counted

if TYPE_CHECKING:
    from emulator.bench.figures import BenchResult, Conditions, Figure
    from emulator.scale import ScaleRow, ScaleTable

_BASELINE: Final = "off"
_WIDTH: Final = 80
_SPREADS: Final = ("per_s", "difference_percent")
_ENDS: Final = ("median", "min", "max")
_LISTS: Final = ("values", "differences")  # Of single runs: in the JSON document.


@click.command("scale", short_help="Run a scenario with several numbers of vCPUs.")
@click.argument("scenario", type=ScenarioName())
@click.option(
    "--vcpus", type=VcpuCounts(), default="1,2,4,8,16", show_default=True, help="The vCPU counts."
)
@click.option(
    "--mechanism",
    "mechanisms",
    type=MechanismName(),
    multiple=True,
    help="A mechanism to run it under, also as NAME(KEY=VALUE,...); repeatable.  "
    "[default: off and the scenario's own]",
)
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True)
@changing_options
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV, a line a row.")
def scale_command(
    scenario: str,
    vcpus: list[int],
    mechanisms: tuple[str, ...],
    repeat: int,
    settings: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    **options: Any,
) -> None:
    """Run SCENARIO with several numbers of vCPUs and show how it scales.

    Mechanisms take turns; with --repeat the spread of their differences is shown, too.
    """
    from emulator.report.live import make_view

    if as_json and as_csv:
        raise ConfigError("--json and --csv: choose one of them")
    loaded = load_scenario(scenario, overrides(settings, **options))
    require_runnable(loaded)
    names = list(dict.fromkeys(mechanisms or (_BASELINE, loaded.mechanism.name)))
    for text in names:
        _require(read_candidate(text, loaded))
    with make_view(sys.stderr, memory_bytes=loaded.memory_bytes) as view:
        view.phase("loading")
        from emulator.scale import run_scale

        table = run_scale(loaded, vcpus, names, repeat, view)
    if as_csv:
        click.echo(scale_csv(table), nl=False)
    else:
        click.echo(_json(table) if as_json else "\n".join(scale_lines(table)))
    if any(row.violations for row in table.rows):
        click.get_current_context().exit(1)


def _require(candidate: Candidate) -> None:
    """Raise ConfigError for a mechanism that is not there, or has no such parameters."""
    from emulator.guest.hinting.registry import load_mechanism, source_of

    name = candidate.mechanism.name
    require_mechanism(name, where="--mechanism")
    if source_of(name) is None:  # A user's own is loaded where its kernels are, by the run.
        where = f"--mechanism {candidate.label.partition('(')[0]}"
        load_mechanism(name, candidate.mechanism.parameters, where=where)


@click.command("bench", short_help="Measure how fast each part is on this machine.")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench_command(names: tuple[str, ...], as_json: bool) -> None:
    """Measure how fast each part is, or those whose name starts with one of NAMES."""
    from emulator.report.live import make_view

    with make_view(sys.stderr) as view:
        view.phase("loading")
        from emulator.bench import run_bench

        result = run_bench(names, view)
    click.echo(_json(result) if as_json else "\n".join(bench_lines(result)))
    if result.failures:
        click.get_current_context().exit(1)


def scale_lines(table: "ScaleTable") -> list[str]:
    """The will-it-scale table, and what is to be said about it."""
    header = ["vcpus", "mechanism", "per second", "per vCPU"]
    compared = table.baseline is not None
    if compared:
        header.append(f"against {table.baseline}")
    header += ["failed", "violations"]
    rows = [_scale_cells(row, compared=compared) for row in table.rows]
    numbers = [name not in ("mechanism", f"against {table.baseline}") for name in header]
    times = f"{table.repeats} times" if table.repeats > 1 else "once"
    return [
        f"{table.scenario}: {table.figure}, {times} each ({table.launcher}, {table.ram})",
        *aligned([header, *rows], right=numbers),
        *table.notes,
        *_published_lines(table),
    ]


def _published_lines(table: "ScaleTable") -> list[str]:
    from emulator.report.published import measured_words, missing_words

    lines = ["", "Published, and measured here"] if table.published else []
    for one in table.published:
        lines += textwrap.wrap(f"- {one.published.what}", _WIDTH, subsequent_indent="  ")
        words = [missing_words(one.published, one.why)] if one.why else []
        for row in one.rows:
            measured = _per_s(row)
            if one.published.against:
                alone = " (one pair)" if len(row.differences) == 1 else ""
                measured = f"{_difference(row)}{alone}"
            who = f"{row.mechanism.rpartition('/')[2]}, {counted(row.vcpus, 'vCPU')}"
            words.append(f"{who}: {measured_words(measured or NOT_MEASURED, one.published)}")
        for line in words:
            lines += textwrap.wrap(line, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _per_s(row: "ScaleRow") -> str:
    return "" if row.per_s is None else f"{row.per_s.median:,.0f} /s"


def _difference(row: "ScaleRow") -> str:
    """The median, and with several repetitions the least and the most."""
    found = row.difference_percent
    if found is None:
        return ""
    spread = f" ({found.min:+.1f} .. {found.max:+.1f})" if len(row.differences) > 1 else ""
    return f"{found.median:+.1f} %{spread}"


def scale_csv(table: "ScaleTable") -> str:
    """A header and a line a row; what was not measured is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [name for name in table.rows[0].__struct_fields__ if name not in _LISTS]
    writer.writerow(
        [f"{c}_{end}" if end else c for c in columns for end in (_ENDS if c in _SPREADS else [""])]
    )
    for row in table.rows:
        cells: list[Any] = []
        for column in columns:
            value = getattr(row, column)
            ends = [getattr(value, end, None) for end in _ENDS]
            cells += ends if column in _SPREADS else [value]
        writer.writerow("" if cell is None else cell for cell in cells)
    return text.getvalue()


def _scale_cells(row: "ScaleRow", *, compared: bool) -> list[str]:
    rates = [None if row.per_s is None else row.per_s.median, row.per_s_per_vcpu]
    cells = [str(row.vcpus), row.mechanism.rpartition("/")[2]]
    cells += ["-" if rate is None else f"{rate:,.0f}" for rate in rates]
    if compared:
        cells.append(_difference(row))
    return [*cells, str(row.failed_allocations), str(row.violations)]


def bench_lines(result: "BenchResult") -> list[str]:
    """The machine, a line a series, and what is to be said about them."""
    header = ["series", "median", "min .. max", "n", "target", "met", "compared to"]
    rows = [_bench_cells(name, one) for name, one in result.series.items()]
    machine = result.machine
    return [
        f"{machine['cpu_model']}, {machine['cpus']} CPUs, Linux {machine['kernel']}"
        + (", which reports its free pages" if machine.get("reports_free_pages") else ""),
        f"before: {_conditions(result.before)}",
        f"after:  {_conditions(result.after)}",
        "",
        *aligned([header, *rows], right=[False, True, False, True]),
        "",
        *(f"{name}: {one.note}" for name, one in result.series.items() if one.note),
    ]


def _bench_cells(name: str, one: "Figure") -> list[str]:
    least, most = one.target.at_least, one.target.at_most
    limit = most if least is None else least
    target = _number(limit, one.unit)
    median = _number(one.median, one.unit)
    if median == target:  # So close that more digits are needed to see whether it is met.
        median = _number(one.median, one.unit, digits=6)
    spread = "" if one.n < 2 else f"{_number(one.min, one.unit)} .. {_number(one.max, one.unit)}"
    compared = one.compared_to
    return [
        name,
        median,
        spread,
        str(one.n),
        "" if limit is None else f"{'<=' if least is None else '>='} {target}",
        "" if limit is None else {True: "yes", False: "no", None: "-"}[one.met],
        "" if compared is None else f"{_number(compared.figure, one.unit)} {compared.who}",
    ]


def _conditions(found: "Conditions") -> str:
    load = " ".join(f"{one:.2f}" for one in found.load_average)
    if found.cache_line_round_trip_ns is None:
        return f"load {load}; one CPU only"
    return (
        f"load {load}; cache-line round trip between CPUs {found.cache_line_round_trip_ns:.0f} ns "
        f"({found.distance})"
    )


def _number(value: float | None, unit: str, *, digits: int = 4) -> str:
    """Short; the unit is in the series' name."""
    if value is None:
        return "-"
    binary = unit == "bytes"
    scales = ((1 << 30, "Gi"), (1 << 20, "Mi")) if binary else ((1e6, "M"), (1e3, "k"))
    for scale, letter in scales:
        if value >= scale:
            return f"{value / scale:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
