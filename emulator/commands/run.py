"""`scenario` and `replay`: run one scenario into a run folder."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from emulator.commands.options import MechanismName, ScenarioName, changing_options, overrides
from emulator.commands.registries import require_mechanism, require_names
from emulator.config.guest import VCPUS_MAX
from emulator.config.requirements import require_guests, require_memory
from emulator.config.scenario import Scenario, load_scenario
from emulator.config.toml import write_string
from emulator.errors import ConfigError, MachineLacks, MechanismFailed, RunFailed
from emulator.machine_check import available_bytes
from emulator.observer import Observer
from emulator.run_folder import REPORT, RunFolder
from emulator.summary import Summary, check, check_metric, is_sound, to_json

_DEFAULT_SCENARIO = "memhog"


def _running_options(command: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option(
            "--output",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="The run folder; without it, a new one in runs/.",
        ),
        changing_options,
        click.option("--vcpus", type=click.IntRange(1, VCPUS_MAX), help="The guest's processors."),
        click.option(
            "--mechanism",
            type=MechanismName(),
            help="How free memory is given back; also as NAME(KEY=VALUE,...).",
        ),
    ):
        command = option(command)
    return command


@click.command("scenario", short_help="Run a scenario (default: memhog).")
@click.argument("name", type=ScenarioName(), default=_DEFAULT_SCENARIO, required=False)
@_running_options
def scenario_command(
    name: str, settings: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Run the scenario NAME (default: memhog), or a scenario FILE.toml."""
    execute(load_scenario(name, overrides(settings, **options)), output=output, as_json=as_json)


@click.command("replay", short_help="Replay a recorded kernel trace.")
@click.argument("trace", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_running_options
def replay_command(
    trace: Path, settings: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Replay a recorded kernel trace: the events of kmem:mm_page_alloc and mm_page_free."""
    named = f"workload.trace={write_string(str(trace.resolve()))}"
    scenario = load_scenario("replay", [named, *overrides(settings, **options)])
    execute(scenario, output=output, as_json=as_json)


def require_runnable(scenario: Scenario) -> None:
    """Raise `ConfigError` for what can be known before a run: names, memory, expectations, and
    what the published figures are of."""
    require_names(scenario)
    require_guests(scenario)
    require_memory(scenario, available_bytes=available_bytes())
    for index, expectation in enumerate(scenario.expect):
        _require_metric(expectation.metric, where=scenario.where(f"expect.{index}.metric"))
    _require_published(scenario)


def _require_published(scenario: Scenario) -> None:
    for index, published in enumerate(scenario.published):
        where = scenario.where(f"published.{index}")
        if published.metric is not None:
            _require_metric(published.metric, where=f"{where}.metric")
        for key in ("mechanism", "against"):
            name = getattr(published, key)
            if name is not None:
                require_mechanism(name, where=f"{where}.{key}")
        if published.parameters:
            from emulator.guest.hinting.registry import load_mechanism

            assert published.mechanism is not None
            load_mechanism(published.mechanism, published.parameters, where=f"{where}.parameters")


def _require_metric(metric: str, *, where: str) -> None:
    try:
        check_metric(metric)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def execute(scenario: Scenario, *, output: Path | None, as_json: bool) -> None:
    """Run a scenario, write its folder, print the result; ends the program with 1 if not sound.

    Raises `ConfigError`, `MachineLacks` (both leave no folder behind) and `RunFailed` (the folder
    keeps what was recorded); after the run, `ConfigError` where `[capacity]` has no answer.
    """
    from emulator.capacity.capacities import figures_of, require_answer
    from emulator.capacity.recorded import capacity_in
    from emulator.report.live import make_view

    require_runnable(scenario)
    started = datetime.now(UTC)
    folder = RunFolder.create(output, scenario.name, started)
    try:
        with make_view(sys.stderr, memory_bytes=scenario.memory_bytes) as view:
            summary = _record(scenario, folder, started, view)
            view.phase("writing the report")
            capacities = capacity_in(folder, scenario)
            summary = msgspec.structs.replace(summary, capacity=figures_of(capacities))
            folder.write_summary(summary)
            results = check(scenario.expect, summary)
            _write_report([folder], folder.path / REPORT)
    except (KeyboardInterrupt, RunFailed):
        click.echo(f"What was recorded is in {folder.path}", err=True)
        raise
    if as_json:
        click.echo(to_json(summary))
    else:
        from emulator.commands.console import ResultConsole
        from emulator.report.text import render_summary

        series = folder.read_series()
        console = ResultConsole()
        render_summary(
            summary,
            scenario,
            results,
            console,
            series=series,
            folder=folder.path,
            capacities=capacities,
        )
    require_answer(capacities)
    if not is_sound(summary, results):
        click.get_current_context().exit(1)


def _record(scenario: Scenario, folder: RunFolder, started: datetime, view: Observer) -> Summary:
    """Run it, with everything recorded in the folder; a run that never began leaves no folder."""
    view.phase("loading")
    began = False
    try:
        folder.write_scenario(scenario)
        folder.write_manifest(seed=scenario.run.seed, started=started)
        with folder.recording(view) as recorder:
            from emulator.runner import run

            try:
                return run(scenario, output=folder.path, observer=recorder)
            finally:
                began = bool(recorder.rows)
    except (ConfigError, MachineLacks) as error:
        if not began or isinstance(error, MechanismFailed):
            folder.discard()
        raise


def _write_report(folders: list[RunFolder], path: Path) -> None:
    from emulator.report.html import write_report

    write_report(folders, path)
