"""How a process of the run failed: one line for the user, the traceback for the log."""

import os
import signal
import traceback
from pathlib import Path
from typing import Final

from emulator.errors import ConfigError, MachineLacks, MechanismFailed, RunFailed
from emulator.guest.hinting.blame import blame

_KERNELS_VARIABLE: Final = "EMULATOR_KERNELS"  # As `devices.memory.jit`, which imports numba.
_TRACEBACK_CHARACTERS_MAX: Final = 16_000
_FORK_SERVER_GONE: Final = 255  # What multiprocessing says where nobody can know any more.


class ProcessDied(RunFailed):
    """A process that the run cannot do without has ended."""

    def __init__(self, name: str, exitcode: int | None) -> None:
        super().__init__(f"the {name} {how_ended(exitcode)}; the run was ended")


class ProcessFailed(RunFailed):
    """A process of the run met an error; its traceback is a note of this exception."""

    def __init__(self, name: str, failure: dict[str, str]) -> None:
        super().__init__(f"the {name} failed: {failure['error']}; the run was ended")
        self.add_note(failure["traceback"])


def how_ended(exitcode: int | None) -> str:
    """In words."""
    if exitcode is None:
        return "vanished"
    if exitcode == _FORK_SERVER_GONE:
        return "ended because the fork server did"
    if exitcode < 0:
        return f"was killed by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    return f"ended by itself with exit code {exitcode}"


def describe(error: BaseException) -> dict[str, str]:
    """For `process_failed`, in words that JSON can carry: "error" is one line, as is "blamed", if
    it comes from a user's own mechanism."""
    text = "".join(traceback.format_exception(error))
    cause = first_leaf(error)
    line = next(iter(str(cause).strip().splitlines()), "")
    if not isinstance(cause, RunFailed):
        line = f"{type(cause).__name__}: {line}" if line else type(cause).__name__
    told = {"error": line, "traceback": text[-_TRACEBACK_CHARACTERS_MAX:]}
    own = os.environ.get(_KERNELS_VARIABLE)
    blamed = blame(Path(own), error) if own else None
    return told if blamed is None else told | {"blamed": blamed}


def process_failed(name: str, failure: dict[str, str]) -> RunFailed | MechanismFailed:
    """What to raise for a process that told of a failure (`describe`)."""
    if "blamed" in failure:
        return MechanismFailed(failure["blamed"])
    return ProcessFailed(name, failure)


def first_leaf(error: BaseException) -> BaseException:
    """The first exception that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell the user of it: an interrupt before all else, or one failure.

    The group itself where it holds neither: a bug of ours.
    """
    for kind in (KeyboardInterrupt, ConfigError, MachineLacks, RunFailed):
        found = group.subgroup(kind)
        if found is not None:
            return first_leaf(found)
    return group
