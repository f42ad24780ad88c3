"""The group of all commands, and what becomes of an error: one line and an exit code.

0: done and sound; 1: an expectation failed, the oracle found a violation, or the run failed;
2: usage or bad input; 3: the machine lacks something; 130: interrupted, or 128 and the number of
the signal that ended it; 141: nobody reads stdout.
"""

import errno
import os
import signal
import sys
from typing import IO, Any, Final

import click

from emulator.commands.capacity import capacity_command
from emulator.commands.compare import compare_command
from emulator.commands.guest import guest_group, vhost_user_command
from emulator.commands.inspect import list_command, report_command, sysinfo_command
from emulator.commands.measure import bench_command, scale_command
from emulator.commands.run import replay_command, scenario_command
from emulator.errors import ConfigError, MachineLacks, RunFailed
from emulator.interrupt import as_interrupts

_BROKEN_PIPE: Final = 141  # As a shell reports SIGPIPE.


class _Refused(click.ClickException):
    """Usage or bad input."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(self.message, file=file, err=True)


class _Failed(_Refused):
    """The run failed."""

    exit_code = 1


class _Lacking(_Refused):
    """The machine lacks something."""

    exit_code = 3


class Application(click.Group):
    """Runs a command; whatever a user can do wrong ends in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """As `click.Group.invoke`, with our errors turned into lines and exit codes."""
        try:
            return self._invoke(ctx)
        except ConfigError as error:
            raise _Refused(_line(error)) from None
        except MachineLacks as error:
            raise _Lacking(_line(error)) from None
        except RunFailed as error:
            raise _Failed(_line(error)) from None
        except KeyboardInterrupt as interrupt:
            number = interrupt.args[0]
            text = "Interrupted." if number == signal.SIGINT else f"Ended by {number.name}."
            click.echo(text, err=True)
            ctx.exit(128 + number)  # As a shell reports it.
        except BrokenPipeError:
            _drop_output()
            ctx.exit(_BROKEN_PIPE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _drop_output()
            raise _Refused(f"Error: the output cannot be written: {error.strerror}") from None

    def _invoke(self, ctx: click.Context) -> Any:
        with as_interrupts() as received:
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
            except KeyboardInterrupt:
                raise KeyboardInterrupt(*received, signal.SIGINT) from None


def _drop_output() -> None:
    """What is still buffered has nowhere to go, and must not be tried again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _line(error: Exception) -> str:
    return f"Error: {' '.join(str(error).split())}"


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A laboratory for giving a guest's free memory back to its host.

    Results go to standard output, progress to standard error.
    """


for _command in (
    scenario_command,
    compare_command,
    scale_command,
    replay_command,
    capacity_command,
    report_command,
    list_command,
    guest_group,
    vhost_user_command,
    bench_command,
    sysinfo_command,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    cli(prog_name="python -m emulator" if sys.argv[0].endswith("__main__.py") else None)
