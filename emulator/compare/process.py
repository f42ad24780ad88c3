"""One run in a process of its own, watched from here.

`run_apart` is `emulator.runner.run`, but that no run inherits anything from the one before: each
has its own heap and address layout, its own fork server with its own mechanism's kernels, and a
mechanism that crashes takes nothing with it.  The process tells what it does over a pipe, a JSON
line for each call of the observer, and at last the summary or why there is none.

It is in a process group of its own, so that Ctrl-C reaches it once, from here, and it can stop in
order; if we are killed, the kernel interrupts it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Final

import msgspec

from emulator.config.scenario import ROOT, Scenario
from emulator.errors import ConfigError, MachineLacks, RunFailed
from emulator.observer import NullObserver, Observer
from emulator.summary import SeriesRow, Summary

_MODULE: Final = "emulator.compare.process"
_KERNELS_VARIABLE: Final = "EMULATOR_KERNELS"  # As `devices.memory.jit`, which imports numba.
_PR_SET_PDEATHSIG: Final = 1
_STOP_S_MAX: Final = 90.0  # A report under way, and counting every page of a large guest.
_INTERRUPTED: Final = 130
_WORDS_MAX: Final = 16_000


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do, on its standard input: to run a scenario into `output`, or only
    to make its mechanism, with `check_as` before what is wrong with it."""

    scenario: Scenario
    output: str = ""
    check_as: str | None = None


class PhaseBegan(msgspec.Struct, frozen=True, tag="phase"):
    """`Observer.phase`."""

    text: str


class Sampled(msgspec.Struct, frozen=True, tag="sample"):
    """`Observer.sample`."""

    row: SeriesRow


class Happened(msgspec.Struct, frozen=True, tag="event"):
    """`Observer.event`."""

    text: str


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """The mechanism can be made."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The run came to its end."""

    summary: Summary


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error for the user, by the name of its class."""

    error: str
    text: str


Message = PhaseBegan | Sampled | Happened | Checked | Ended | Failed

_ERRORS: Final = {error.__name__: error for error in (ConfigError, MachineLacks, RunFailed)}


def run_apart(scenario: Scenario, *, output: Path, observer: Observer) -> Summary:
    """Run a scenario to its end in another process, as `emulator.runner.run` does in this one.

    Raises the errors that the run raises there, and RunFailed if the process itself dies.
    """
    last = _order(Order(scenario=scenario, output=str(output.resolve())), observer)
    assert isinstance(last, Ended), last
    return last.summary


def check_apart(scenario: Scenario, *, where: str) -> None:
    """Raise ConfigError, beginning with `where`, if the scenario's mechanism cannot be made.

    For a user's own: a process can hold the kernels of one such file only.
    """
    last = _order(Order(scenario=scenario, check_as=where), NullObserver())
    assert isinstance(last, Checked), last


def _order(order: Order, observer: Observer) -> Message:
    """Have it done; raises the error if it fails."""
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb") as messages,
        tempfile.TemporaryFile() as told,
        tempfile.TemporaryFile() as words,
    ):
        told.write(msgspec.json.encode(order))
        told.seek(0)
        try:
            child = _start(writer, told, words)
        finally:
            os.close(writer)
        try:
            last = _listen(messages, observer)
            code = child.wait()
        except BaseException:
            messages.close()  # What it still has to say must not hold it up.
            _stop(child)
            raise
        said = _said(words)
    for line in said:
        observer.event(line)
    match last:
        case Ended() | Checked():
            return last
        case Failed():
            raise _ERRORS.get(last.error, RunFailed)(last.text)
    reason = f": {said[-1]}" if said else ""
    raise RunFailed(f"the process of the run {_how_ended(code)}{reason}")


def _start(writer: int, told: IO[bytes], words: IO[bytes]) -> "subprocess.Popen[bytes]":
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, str(writer)],
        stdin=told,
        stdout=words,
        stderr=words,
        pass_fds=[writer],
        process_group=0,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def _listen(messages: IO[bytes], observer: Observer) -> Message | None:
    """Pass on what is told until the process has ended; returns the last message."""
    decoder = msgspec.json.Decoder(Message)
    message: Message | None = None
    for line in messages:
        with contextlib.suppress(msgspec.DecodeError):  # Half a line: it died over it.
            message = decoder.decode(line)
            match message:
                case PhaseBegan(text):
                    observer.phase(text)
                case Sampled(row):
                    observer.sample(row)
                case Happened(text):
                    observer.event(text)
    return message


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """Interrupt it and wait for it to clean up; a second Ctrl-C ends it at once."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    try:
        child.wait(_STOP_S_MAX)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def _said(words: IO[bytes]) -> list[str]:
    """What it printed although nobody was to read it: warnings, a traceback."""
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - _WORDS_MAX))
    return words.read().decode(errors="replace").splitlines()


def _how_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class _Teller:
    """The observer in the process: each call is a line; nobody listening is not an error."""

    def __init__(self, descriptor: int) -> None:
        self._pipe: IO[bytes] | None = os.fdopen(descriptor, "wb")

    def tell(self, message: Message) -> None:
        """Write a line."""
        if self._pipe is None:
            return
        try:
            self._pipe.write(msgspec.json.encode(message, enc_hook=_plain) + b"\n")
            self._pipe.flush()
        except OSError:
            self._pipe = None

    def phase(self, text: str) -> None:
        """As the observer there."""
        self.tell(PhaseBegan(text))

    def sample(self, row: SeriesRow) -> None:
        """As the observer there."""
        self.tell(Sampled(row))

    def event(self, text: str) -> None:
        """As the observer there."""
        self.tell(Happened(text))


def _plain(value: object) -> object:
    """A numpy number as Python's own."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"JSON has no form for {value!r}")


def _done(order: Order, observer: Observer) -> Message:
    if order.check_as is None:
        from emulator.runner import run

        return Ended(run(order.scenario, output=Path(order.output), observer=observer))
    from emulator.guest.hinting.registry import load_mechanism, source_of

    mechanism = order.scenario.mechanism
    own = source_of(mechanism.name)
    if own is not None:
        os.environ[_KERNELS_VARIABLE] = str(own)  # Read when the first kernel is loaded.
    load_mechanism(mechanism.name, mechanism.parameters, where=order.check_as)
    return Checked()


def main(descriptor: int) -> int:
    """Do what standard input orders, and tell of it on the pipe `descriptor`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's `&` has it ignored.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    os.set_inheritable(descriptor, False)
    teller = _Teller(descriptor)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        teller.tell(_done(order, teller))
    except (ConfigError, MachineLacks, RunFailed) as error:
        known = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
        teller.tell(Failed(known, " ".join(str(error).split())))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
