"""The fork server: from it every process of a run is forked, with all code loaded.

Kept apart from what imports numba: it is started first, and loads on the other core meanwhile.
"""

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Final

from emulator.config.scenario import Scenario, to_toml

PRELOAD_VARIABLE: Final = "EMULATOR_PRELOAD"  # A JSON list of scenarios, each as TOML.


def start_fork_server(*scenarios: Scenario) -> ForkServerContext:
    """Start the fork server for runs of `scenarios`; it loads and compiles while we go on.

    A process has one: once it is there, this only returns it.  So whoever runs several mechanisms
    names them all at first, or the later ones are loaded by each of their processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emulator.launch.preload"])
    os.environ[PRELOAD_VARIABLE] = json.dumps([to_toml(scenario) for scenario in scenarios])
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
