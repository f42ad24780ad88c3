"""`capacity`: how many guests fit a host, from footprints that were recorded."""

from pathlib import Path
from typing import Any, Final

import click

from emulator.commands.options import Size
from emulator.config.capacity import PROBABILITIES, RESAMPLES, CapacityConfig
from emulator.config.parameters import decode_parameters
from emulator.errors import ConfigError
from emulator.run_folder import write_atomically

_QUESTION: Final = "How many guests fit a host, if they behave as those that were recorded?"


@click.command("capacity", short_help="How many recorded guests fit a host.")
@click.argument(
    "recorded", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR..."
)
@click.option("--host", type=Size(), required=True, help="Its memory for guests, such as 64GiB.")
@click.option(
    "--probability",
    "probabilities",
    type=float,
    multiple=True,
    default=PROBABILITIES,
    show_default=True,
    help="Of swapping, as a part of the time; repeatable.",
)
@click.option("--after", default="0s", help="Leave out what was recorded before, such as 30s.")
@click.option("--resamples", type=int, default=RESAMPLES, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with the picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def capacity_command(
    recorded: tuple[Path, ...], seed: int, html: Path | None, as_json: bool, **options: Any
) -> None:
    """Say how many guests fit a host with a small probability of swapping.

    DIR: run folders (also of real guests), comparisons, or CSV files with the columns time_s and
    resident_bytes.  Guests are drawn from what was recorded, each at a random phase.
    """
    options["probabilities"] = list(options["probabilities"])
    try:
        config = decode_parameters(CapacityConfig, options, where="--")
    except ConfigError as error:
        said = str(error).replace("--.", "--").replace("--: ", "--")
        raise ConfigError(said.replace("--probabilities", "--probability")) from None

    from emulator.capacity.capacities import capacities_of, require_answer, to_json
    from emulator.capacity.recorded import read_recorded

    found = capacities_of(read_recorded(recorded), config, seed=seed)
    require_answer(found)
    if html is not None:
        from emulator.report.html import render_capacity_page

        write_atomically(html, render_capacity_page(found, _QUESTION))
        click.echo(f"Wrote {html}", err=True)
    if as_json:
        click.echo(to_json(found))
        return
    from emulator.commands.console import ResultConsole
    from emulator.report.capacity_words import capacity_lines

    console = ResultConsole()
    for line, style in capacity_lines(found):
        console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)
