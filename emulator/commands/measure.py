"""`scale` and `bench`: series of numbers, on this machine."""

import sys
from typing import Any

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
from emulator.commands.table import table_lines
from emulator.config.scenario import load_scenario


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
    help="A mechanism to run it under; repeatable.  [default: the scenario's own]",
)
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True)
@changing_options
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def scale_command(
    scenario: str,
    vcpus: list[int],
    mechanisms: tuple[str, ...],
    repeat: int,
    settings: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Run SCENARIO with several numbers of vCPUs and show how it scales."""
    from emulator.report.live import make_view

    loaded = load_scenario(scenario, overrides(settings, **options))
    require_runnable(loaded)
    for name in mechanisms:
        require_mechanism(name, where="--mechanism")
    names = list(dict.fromkeys(mechanisms)) or [loaded.mechanism.name]
    with make_view(sys.stderr, memory_bytes=loaded.guest.memory_bytes) as view:
        view.phase("loading")
        from emulator.scale import run_scale

        table = msgspec.to_builtins(run_scale(loaded, vcpus, names, repeat, view))
    if as_json:
        click.echo(_json(table))
    else:
        click.echo("\n".join(table_lines(table["rows"])))


@click.command("bench", short_help="Measure how fast each part is on this machine.")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench_command(names: tuple[str, ...], as_json: bool) -> None:
    """Measure how fast each part (or those NAMES) is on this machine."""
    from emulator.report.live import make_view

    with make_view(sys.stderr) as view:
        view.phase("loading")
        from emulator.bench import run_bench

        figures = msgspec.to_builtins(run_bench(list(names), view))
    if as_json:
        click.echo(_json(figures))
    else:
        rows = [
            {"part": part, **(found if isinstance(found, dict) else {"figure": found})}
            for part, found in figures.items()
        ]
        click.echo("\n".join(table_lines(rows)))


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
