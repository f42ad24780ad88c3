"""`compare`: mechanisms against each other, in pairs, with intervals."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from emulator.commands.options import (
    MechanismName,
    ScenarioName,
    changing_options,
    overrides,
)
from emulator.commands.registries import mechanisms as registered
from emulator.commands.registries import require_mechanism
from emulator.commands.run import require_runnable
from emulator.compare.candidate import Candidate, read_candidates
from emulator.config.guest import VCPUS_MAX
from emulator.config.scenario import Scenario, load_scenario
from emulator.errors import ConfigError, MachineLacks
from emulator.run_folder import COMPARISON, REPORT, RunFolder, write_atomically

if TYPE_CHECKING:
    from emulator.compare.comparison import Comparison, MadeRun

MAIL: Final = "mail.txt"
_REPEATS_MAX: Final = 1000


@click.command("compare", short_help="Compare mechanisms under one scenario.")
@click.argument("scenario", type=ScenarioName())
@click.option(
    "--mechanism",
    "mechanisms",
    type=MechanismName(),
    multiple=True,
    help="A mechanism, also as NAME(KEY=VALUE,...), or all; the first is the baseline. Without "
    "any, what the scenario compares.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, _REPEATS_MAX),
    default=5,
    show_default=True,
    help="How many runs of each.",
)
@click.option("--vcpus", type=click.IntRange(1, VCPUS_MAX), help="The guest's processors.")
@changing_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder of page and runs; without it, a new one in runs/.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every single value as JSON.")
@click.option("--mail", "as_mail", is_flag=True, help="Print a text block for a mail.")
def compare_command(
    scenario: str,
    mechanisms: tuple[str, ...],
    repeat: int,
    settings: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    as_mail: bool,
    **options: Any,
) -> None:
    """Run SCENARIO under several mechanisms and say which differences are real.

    Each repeat runs every mechanism with the same seed; orders are counterbalanced.
    """
    if as_json and as_mail:
        raise ConfigError("--json and --mail: choose one of them")
    loaded = load_scenario(scenario, overrides(settings, **options))
    candidates = read_candidates(mechanisms or loaded.compare.mechanisms, loaded, registered())
    require_runnable(loaded)
    for candidate in candidates:
        require_mechanism(candidate.mechanism.name, where="--mechanism")
    _require_parts(loaded, candidates, repeat)
    from emulator.capacity.capacities import require_answer

    comparison, folder = _execute(loaded, candidates, repeat, output)
    if as_json:
        from emulator.compare.comparison import to_json

        click.echo(to_json(comparison))
    elif as_mail:
        click.echo((folder / MAIL).read_text(encoding="utf-8"), nl=False)
    else:
        _show(comparison, folder)
    require_answer(comparison.capacity)
    if not comparison.is_sound:
        click.get_current_context().exit(1)


def show_again(folder: Path) -> bool:
    """Print the comparison in `folder` and write its mail and page again; whether it is sound.

    Raises ConfigError for a damaged folder.
    """
    from emulator.compare.comparison import from_json

    path = folder / COMPARISON
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    comparison = from_json(text, where=str(path))
    _write_pages(comparison, folder)
    _show(comparison, folder)
    return comparison.is_sound


def _show(comparison: "Comparison", folder: Path) -> None:
    from emulator.commands.console import ResultConsole
    from emulator.report.comparison_curves import residency_bands
    from emulator.report.comparison_text import render_comparison

    bands = residency_bands(comparison, folder)
    render_comparison(comparison, bands, ResultConsole(), folder=str(folder / REPORT))


def _require_parts(scenario: Scenario, candidates: list[Candidate], repeats: int) -> None:
    """Raise ConfigError for parameters that mechanisms or workload do not have, or a last seed
    that is too large."""
    from emulator.compare.process import check_apart
    from emulator.guest.hinting.registry import load_mechanism, source_of
    from emulator.workloads.registry import load_workload

    workload = scenario.workload
    load_workload(workload.kind, workload.parameters, where=scenario.where("workload"))
    try:
        msgspec.structs.replace(scenario.run, seed=scenario.run.seed + repeats - 1)
    except ValueError as error:
        raise ConfigError(f"--repeat {repeats}: the last {error}") from None
    for candidate in candidates:
        mechanism = candidate.mechanism
        where = f"--mechanism {candidate.label.partition('(')[0]}"
        if source_of(mechanism.name) is None:
            load_mechanism(mechanism.name, mechanism.parameters, where=where)
        else:
            check_apart(msgspec.structs.replace(scenario, mechanism=mechanism), where=where)


def _execute(
    scenario: Scenario, candidates: list[Candidate], repeats: int, output: Path | None
) -> "tuple[Comparison, Path]":
    """Make all runs and write the folder; what was made before an interruption is kept."""
    from emulator.compare.design import plan
    from emulator.compare.run import make_runs
    from emulator.report.live import View, make_view

    def view() -> View:
        return make_view(sys.stderr, memory_bytes=scenario.memory_bytes)

    planned = plan(len(candidates), repeats, scenario.run.seed)
    folder = _create_folder(output, scenario)
    made: list[MadeRun] = []
    try:
        make_runs(scenario, candidates, planned, folder=folder.path, views=view, made=made)
    except BaseException as error:
        if not made and isinstance(error, ConfigError | MachineLacks):
            folder.discard()
        else:
            if len({run.planned.treatment for run in made if run.summary is not None}) > 1:
                _write(scenario, candidates, made, repeats, folder)
            click.echo(f"What was recorded is in {folder.path}", err=True)
        raise
    with view() as end:
        end.phase("writing the report")
        return _write(scenario, candidates, made, repeats, folder), folder.path


def _create_folder(output: Path | None, scenario: Scenario) -> RunFolder:
    started = datetime.now(UTC)
    folder = RunFolder.create(output, f"compare-{scenario.name}", started)
    held = next(folder.path.iterdir(), None)
    if held is not None:
        raise ConfigError(f"{folder.path}: is not empty ({held.name}); give another folder")
    folder.write_manifest(seed=scenario.run.seed, started=started)
    return folder


def _write(
    scenario: Scenario,
    candidates: list[Candidate],
    made: "list[MadeRun]",
    repeats: int,
    folder: RunFolder,
) -> "Comparison":
    """Compare what was made, and write document, mail and page."""
    from emulator.compare.comparison import compare, to_json

    comparison = compare(
        scenario,
        candidates,
        made,
        folder=folder.path,
        repeats_planned=repeats,
        manifest=folder.read_manifest(),
    )
    if scenario.capacity is not None:
        from emulator.capacity.capacities import capacities_of
        from emulator.capacity.recorded import recorded_in

        recorded = recorded_in(comparison, folder.path)
        found = capacities_of(recorded, scenario.capacity, seed=scenario.run.seed)
        comparison = msgspec.structs.replace(comparison, capacity=found)
    write_atomically(folder.path / COMPARISON, to_json(comparison) + "\n")
    _write_pages(comparison, folder.path)
    return comparison


def _write_pages(comparison: "Comparison", folder: Path) -> None:
    from emulator.report.comparison_curves import residency_bands
    from emulator.report.comparison_html import write_comparison
    from emulator.report.comparison_text import mail_text

    write_atomically(folder / MAIL, mail_text(comparison))
    write_comparison(comparison, residency_bands(comparison, folder), folder / REPORT)
