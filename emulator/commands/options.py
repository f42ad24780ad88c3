"""Options that several commands share, their types, and shell completion."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from emulator.commands.registries import mechanisms
from emulator.compare.candidate import settings_of
from emulator.config.guest import VCPUS_MAX
from emulator.config.scenario import scenario_names
from emulator.config.toml import write_string
from emulator.config.units import size_bytes

F = TypeVar("F", bound=Callable[..., Any])


class ScenarioName(click.ParamType):  # type: ignore[type-arg]  # Not generic before click 8.4.
    """A scenario's name or file; checked when it is loaded."""

    name = "name or file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so, or else files."""
        names = [name for name in scenario_names() if name.startswith(incomplete)]
        return [CompletionItem(n) for n in names] or [CompletionItem(incomplete, type="file")]


class MechanismName(click.ParamType):  # type: ignore[type-arg]  # Not generic before click 8.4.
    """A mechanism's name or FILE:CLASS, also with parameters; checked when the scenario is."""

    name = "name or file:class"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so, or else files."""
        names = [name for name in mechanisms() if name.startswith(incomplete)]
        return [CompletionItem(n) for n in names] or [CompletionItem(incomplete, type="file")]


class Size(click.ParamType):  # type: ignore[type-arg]  # Not generic before click 8.4.
    """A size such as `4G`; kept as it is written."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        try:
            size_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class VcpuCounts(click.ParamType):  # type: ignore[type-arg]  # Not generic before click 8.4.
    """Numbers of vCPUs such as `1,2,4`, in the order given, each once."""

    name = "n,n,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Split and check them."""
        if isinstance(value, list):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isdecimal() and 1 <= int(word) <= VCPUS_MAX for word in words):
            self.fail(f"{value!r}: write numbers from 1 to {VCPUS_MAX} like 1,2,4", param, ctx)
        return list(dict.fromkeys(int(word) for word in words))


def changing_options(command: F) -> F:
    """`--memory`, `--launcher`, `--set` and `--seed`: what every command that runs may change."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), help="Of all random numbers."),
        click.option(
            "--set",
            "settings",
            metavar="KEY=VALUE",
            multiple=True,
            help="Override any key of the scenario, such as mechanism.delay=250ms; repeatable.",
        ),
        click.option(
            "--launcher",
            type=click.Choice(["processes", "virtual", "uml"]),
            help="Real processes in real time, one process in virtual time, or a real Linux.",
        ),
        click.option("--memory", type=Size(), help="The guest's memory, such as 4G."),
    ):
        command = option(command)
    return command


def overrides(
    settings: tuple[str, ...],
    *,
    mechanism: str | None = None,
    vcpus: int | None = None,
    memory: str | None = None,
    launcher: str | None = None,
    seed: int | None = None,
) -> list[str]:
    """The options as overrides of a scenario's keys; what `--set` says comes last."""
    texts = {"guest.memory": memory, "run.launcher": launcher}
    numbers = {"guest.vcpus": vcpus, "run.seed": seed}
    return [
        *([] if mechanism is None else settings_of(mechanism)),
        *(f"{key}={write_string(text)}" for key, text in texts.items() if text is not None),
        *(f"{key}={number}" for key, number in numbers.items() if number is not None),
        *settings,
    ]
