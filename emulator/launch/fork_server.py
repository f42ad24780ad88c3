"""The fork server: from it every process of a run is forked, with all code loaded.

Kept apart from what imports numba: it is started first, and loads on the other core meanwhile.

It tells by a FIFO when it has loaded: the end of that stream is the sign, and what comes before it
says what went wrong.  Waiting for that, unlike starting a process while it loads, can be cancelled.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final

from emulator.config.scenario import Scenario, to_toml
from emulator.interrupt import blocked_interrupt

PRELOAD_VARIABLE: Final = "EMULATOR_PRELOAD"  # A JSON list of scenarios, each as TOML.
FOLDER_VARIABLE: Final = "EMULATOR_FORK_SERVER_FOLDER"  # Holds its socket and the FIFO.
FIFO: Final = "loaded"

_QUIET_TRACKER: Final = "ignore::UserWarning:multiprocessing.resource_tracker"

_SOCKET_PATH_BYTES_MAX: Final = 107  # unix(7): sun_path, with the zero at its end
_SOCKET_IN_FOLDER: Final = "/pymp-12345678/listener-12345678"

_loading_fd: int | None = None


def start_fork_server(*scenarios: Scenario) -> ForkServerContext:
    """Start the fork server for runs of `scenarios`; it loads and compiles while we go on.

    A process has one: once it is there, this only returns it.  So whoever runs several mechanisms
    names them all at first, or the later ones are loaded by each of their processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emulator.launch.fork_server_process"])
    # If we are killed, the tracker removes our segments, as it should, and need not say so.
    # Besides, it unblocks signals when it starts, so it comes before the fork server.
    with _environment(PYTHONWARNINGS=_QUIET_TRACKER):
        resource_tracker.ensure_running()
    folder = _server_folder()
    preload = json.dumps([to_toml(scenario) for scenario in scenarios])
    with _environment(**{PRELOAD_VARIABLE: preload, FOLDER_VARIABLE: folder}):
        _start(Path(folder) / FIFO)
    return context


def _server_folder() -> str:
    """multiprocessing's temporary folder; where TMPDIR is too long for a socket's name, in /tmp.

    From Python 3.14 on it looks to that itself.
    """
    given = tempfile.gettempdir()
    if socket_has_room(given):
        return util.get_temp_dir()
    tempfile.tempdir = "/tmp"
    try:
        return util.get_temp_dir()
    finally:
        tempfile.tempdir = given


def socket_has_room(folder: str) -> bool:
    """Whether the fork server's socket can have a name in that temporary folder."""
    return len(os.fsencode(folder + _SOCKET_IN_FOLDER)) <= _SOCKET_PATH_BYTES_MAX


def _start(fifo: Path) -> None:
    global _loading_fd
    if _loading_fd is not None:
        return  # Started, and nobody has waited for it yet: it may still have to open its FIFO.
    before = _server()._forkserver_pid
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo, 0o600)
    loading_fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with blocked_interrupt():
        forkserver.ensure_running()
    if _server()._forkserver_pid == before:
        os.close(loading_fd)  # It was there already.
        return
    _loading_fd = loading_fd


def _server() -> Any:
    """multiprocessing's own record; it tells nobody of the process that it started."""
    return forkserver._forkserver


def take_loading_fd() -> int | None:
    """The end of the FIFO to read until its end, then to be closed; None: that has been done.

    The fork server opens the other end before anything else.
    """
    global _loading_fd
    found, _loading_fd = _loading_fd, None
    return found


def fork_server_exitcode() -> int | None:
    """How the fork server ended, negative for a signal; None while it lives."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # multiprocessing itself reaps it.
    try:
        found = os.waitid(os.P_PID, _server()._forkserver_pid, ended)
    except ChildProcessError:
        return 0
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


@contextlib.contextmanager
def anonymous_main() -> Iterator[None]:
    """Processes that are started in here do not import our main module again: they need nothing
    of it, and it may be a test runner."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
