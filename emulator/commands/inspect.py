"""`report`, `list` and `sysinfo`: what there is, without running anything."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from emulator.commands.compare import show_again
from emulator.commands.registries import first_line, managers, mechanisms, workloads
from emulator.commands.table import aligned
from emulator.config.scenario import load_scenario, scenario_names
from emulator.errors import ConfigError
from emulator.machine_check import Check, check_machine
from emulator.run_folder import COMPARISON, REPORT, RunFolder
from emulator.summary import check, is_sound

_MISSING_EXIT_CODE: Final = 3


@click.command("report")
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR..."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page to write.  [default: report.html in DIR; of several, in the current folder]",
)
def report_command(folders: tuple[Path, ...], html: Path | None) -> None:
    """Show run folders again, as text, and write their HTML page; or comparisons, one by one."""
    comparisons = [path for path in folders if (path / COMPARISON).is_file()]
    if comparisons:
        _report_comparisons(comparisons, among=folders, html=html)
        return
    runs = [RunFolder.open(path) for path in folders]
    read = [(run, run.read_scenario(), run.read_summary(), run.read_series()) for run in runs]

    from emulator.capacity.recorded import capacity_in
    from emulator.commands.console import ResultConsole
    from emulator.report.html import write_report
    from emulator.report.text import render_summary

    sound, console = True, ResultConsole()
    for run, scenario, summary, series in read:
        results = check(scenario.expect, summary)
        render_summary(
            summary,
            scenario,
            results,
            console,
            series=series,
            folder=run.path,
            capacities=capacity_in(run, scenario),
        )
        sound = sound and is_sound(summary, results)
    page = html or (runs[0].path / REPORT if len(runs) == 1 else Path(REPORT))
    write_report(runs, page)
    click.echo(f"Wrote {page}", err=True)
    if not sound:
        click.get_current_context().exit(1)


def _report_comparisons(
    comparisons: Sequence[Path], *, among: Sequence[Path], html: Path | None
) -> None:
    if len(comparisons) < len(among):
        raise ConfigError(f"{comparisons[0]}: is a comparison; report it and run folders apart")
    if html is not None:
        raise ConfigError("--html: the page of a comparison lies in its folder, report.html")
    sound = True
    for path in comparisons:
        sound = show_again(path) and sound
        click.echo(f"Wrote {path / REPORT}", err=True)
    if not sound:
        click.get_current_context().exit(1)


@click.command("list")
def list_command() -> None:
    """List scenarios, mechanisms, workloads and balloon managers, a line each."""
    sections = {
        "Scenarios": [(name, load_scenario(name).question) for name in scenario_names()],
        "Mechanisms": _described(mechanisms()),
        "Workloads": _described(workloads()),
        "Balloon managers": _described(managers()),
    }
    lines = aligned((f"  {name}", text) for rows in sections.values() for name, text in rows)
    for title, rows in sections.items():
        click.echo(title)
        for line in lines[: len(rows)]:
            click.echo(line)
        lines = lines[len(rows) :]


@click.command("sysinfo")
def sysinfo_command() -> None:
    """Show what this machine can do, and what is missing."""
    checks = check_machine()
    for line in aligned((row.what, row.found, _verdict(row)) for row in checks):
        click.echo(line)
    missing = [row.what for row in checks if row.blocks]
    if missing:
        sys.stdout.flush()
        click.echo(f"No run is possible: {', '.join(missing)}.", err=True)
        click.get_current_context().exit(_MISSING_EXIT_CODE)


def _described(registry: Mapping[str, str]) -> list[tuple[str, str]]:
    """Name and first line; a line that begins with the name does not repeat it."""
    return [
        (name, first_line(target).removeprefix(f"{name}: ")) for name, target in registry.items()
    ]


def _verdict(row: Check) -> str:
    if row.enough is None:
        return ""
    if row.enough:
        return "ok"
    return f"MISSING: {row.remedy}" if row.required else row.remedy
