"""`guest` and `vhost-user`: real guests, ours or somebody else's."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from emulator.commands.options import Size, changing_options, overrides
from emulator.commands.run import execute
from emulator.config.scenario import load_scenario
from emulator.config.units import size_bytes
from emulator.errors import RunFailed

_SCENARIO = "uml_memhog"


@click.group("guest", short_help="Run a real Linux guest.")
def guest_group() -> None:
    """Run a real Linux as the guest."""


@guest_group.command("uml")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The run folder; without it, a new one in runs/.",
)
@changing_options
def uml_command(
    settings: tuple[str, ...], output: Path | None, as_json: bool, **options: Any
) -> None:
    """Run the scenario uml_memhog: User-Mode Linux, which needs no KVM and no privilege."""
    scenario = load_scenario(_SCENARIO, overrides(settings, **options))
    execute(scenario, output=output, as_json=as_json)


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
    help="A feature to offer; repeatable.  "
    "[default: must_tell_host, stats, deflate_on_oom, page_reporting]",
)
@click.option("--any-user", is_flag=True, help="Serve guests of other users, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The run folder; without it, a new one in runs/.",
)
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
    from emulator.run_folder import RunFolder
    from emulator.summary import to_json

    with make_view(sys.stderr) as view:
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
