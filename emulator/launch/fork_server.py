"""The fork server: from it every process of a run is forked, with all code loaded.

Kept apart from what imports numba: it is started first, and loads on the other core meanwhile.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Final

from emulator.config.scenario import Scenario, to_toml

PRELOAD_VARIABLE: Final = "EMULATOR_PRELOAD"  # The scenario, as TOML.


def start_fork_server(scenario: Scenario) -> ForkServerContext:
    """Start the fork server for runs of `scenario`; it loads and compiles while we go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emulator.launch.preload"])
    os.environ[PRELOAD_VARIABLE] = to_toml(scenario)
    try:
        with blocked_interrupt():
            forkserver.ensure_running()
    finally:
        del os.environ[PRELOAD_VARIABLE]
    return context


@contextlib.contextmanager
def blocked_interrupt() -> Iterator[None]:
    """Processes that are started in here never see Ctrl-C; we get ours when it is over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
