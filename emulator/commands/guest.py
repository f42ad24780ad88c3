"""`guest` and `vhost-user`: real guests, ours or somebody else's."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from emulator.commands.options import Size, changing_options, overrides
from emulator.commands.run import execute, require_runnable
from emulator.commands.table import aligned
from emulator.config.scenario import load_scenario
from emulator.config.units import size_bytes
from emulator.errors import ConfigError, MachineLacks, RunFailed
from emulator.run_folder import REPORT, RunFolder

if TYPE_CHECKING:
    from emulator.uml.truth import Truth

_SCENARIO = "uml_memhog"
_UNCHANGED_S = 30.0  # A guest may rest for months; who looks at it then takes no CPU time.

_output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The run folder; without it, a new one in runs/.",
)


@click.group("guest", short_help="Run a real Linux guest.")
def guest_group() -> None:
    """Run a real Linux as the guest."""


@guest_group.command("uml")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@_output_option
@changing_options
def uml_command(
    settings: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Run the scenario uml_memhog: User-Mode Linux, which needs no KVM and no privilege."""
    scenario = load_scenario(_SCENARIO, overrides(settings, **options))
    execute(scenario, output=output, as_json=as_json)


@guest_group.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print what was compared as JSON.")
@_output_option
@changing_options
def check_command(
    settings: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Hold the emulated guest against a real Linux that does the same.

    Exit code 1 unless both made as many reports after each free, of the same bytes within 5 %, at
    times within 300 ms of each other.
    """
    from emulator.report.html import write_report
    from emulator.report.live import make_view

    loaded = load_scenario(_SCENARIO, overrides(settings, **options))
    require_runnable(loaded)
    started = datetime.now(UTC)
    folder = RunFolder.create(output, f"{loaded.name}-check", started)
    try:
        with make_view(sys.stderr, memory_bytes=loaded.guest.memory_bytes) as view:
            view.phase("loading")
            from emulator.uml.truth import check_truth

            folder.write_scenario(loaded)
            folder.write_manifest(seed=loaded.run.seed, started=started)
            with folder.recording(view) as recorder:
                truth = check_truth(loaded, output=folder.path, observer=recorder)
            folder.write_summary(truth.real)
            write_report([folder], folder.path / REPORT)
    except (ConfigError, MachineLacks):
        folder.discard()
        raise
    click.echo(truth_json(truth) if as_json else "\n".join(truth_lines(truth)))
    if not truth.holds:
        click.get_current_context().exit(1)


def truth_lines(truth: "Truth") -> list[str]:
    """A line for each guest and free, and the verdict."""
    rows = [["free", "guest", "reports", "bytes", "given back, seconds after the free"]]
    for number, pair in enumerate(truth.pairs, start=1):
        for name, seen in (("Linux", pair.real), ("emulated", pair.emulated)):
            times = " ".join(f"{at_s:.2f}" for at_s in seen.times_s)
            size = f"{sum(seen.reported_bytes) >> 20} MiB"
            rows.append([str(number), name, str(len(seen.times_s)), size, times])
    apart = [pair.apart_s_max for pair in truth.pairs]
    percent = max(abs(pair.bytes_percent) for pair in truth.pairs)
    alike = None not in apart
    count = "as many reports" if alike else "NOT as many reports"
    words = [f"{count} after each free", f"bytes within {percent:.1f} % (5 % allowed)"]
    if alike:
        words.append(f"times within {1000 * max(a or 0 for a in apart):.0f} ms (300 ms allowed)")
    verdict = "The same" if truth.holds else "NOT the same"
    return [*aligned(rows, right=[True, False, True, True]), f"{verdict}: {', '.join(words)}."]


def truth_json(truth: "Truth") -> str:
    """The pairs, and whether they are alike."""
    found = {"holds": truth.holds, "pairs": truth.pairs}
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


@click.command("vhost-user", short_help="Serve a guest that somebody else runs.")
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the guest's front-end connects; PATH.control takes commands.",
)
@click.option("--target", type=Size(), help="The memory that the guest may have, such as 256M.")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="NAME",
    help="A feature to offer: must_tell_host, stats_vq, deflate_on_oom, free_page_hint, "
    "page_poison, page_reporting; repeatable.  [default: all but free_page_hint and page_poison]",
)
@click.option("--any-user", is_flag=True, help="Serve guests of other users, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@_output_option
def vhost_user_command(
    path: Path,
    target: str | None,
    features: tuple[str, ...],
    any_user: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Serve a guest's balloon over vhost-user until the guest leaves.

    While it runs, PATH.control is a socket that takes lines of JSON: {"target": "256MiB"} leaves
    the guest with so much memory, {"target": null} with all, {} only asks.  Each is answered with
    the guest's state.  It is no command on standard input, because that may be closed or a pipe.
    """
    from emulator.commands.console import ResultConsole
    from emulator.report.live import make_view
    from emulator.report.text import render_summary
    from emulator.summary import to_json

    with make_view(sys.stderr, unchanged_s=_UNCHANGED_S) as view:
        view.phase("loading")
        from emulator.serve.serve import Plan, serve

        plan = Plan(
            path=path,
            target_bytes=None if target is None else size_bytes(target),
            features=features,
            any_user=any_user,
        )
        folder = RunFolder.create(output, "vhost-user", datetime.now(UTC))
        try:
            scenario, summary = serve(plan, folder, view)
        except (KeyboardInterrupt, RunFailed):
            if folder.path.exists():
                click.echo(f"What was recorded is in {folder.path}", err=True)
            raise
    if as_json:
        click.echo(to_json(summary))
    else:
        series = folder.read_series()
        render_summary(summary, scenario, [], ResultConsole(), series=series, folder=folder.path)
