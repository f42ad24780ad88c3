"""Runs one scenario: makes its guests, hands them to the launcher, and gives everything back."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.config.requirements import require_guests, require_swap
from emulator.config.scenario import Scenario
from emulator.errors import MechanismFailed
from emulator.guest.hinting.blame import blame
from emulator.guest.hinting.registry import source_of
from emulator.machine_check import require_machine
from emulator.observer import Observer
from emulator.run_folder import SERIES_GUESTS, write_atomically
from emulator.summary import Summary

if TYPE_CHECKING:
    from emulator.guests import Guests
    from emulator.guests_sampler import GuestsSampler


def run(scenario: Scenario, *, output: Path, observer: Observer) -> Summary:
    """Run a scenario to its end; where there are several guests, their series is written.

    output: the run's folder.
    Raises ConfigError (bad parameters), MachineLacks (with the remedy), RunFailed (a process died,
    the time limit passed, an invariant does not hold).
    """
    require_machine()
    require_guests(scenario)
    require_swap(scenario)
    if scenario.run.launcher == "uml":
        from emulator.uml.run_task import run_uml

        return run_uml(scenario, output=output, observer=observer)
    own = source_of(scenario.mechanism.name)
    if own is not None:  # Read when the first kernel is loaded, here and in the fork server.
        os.environ["EMULATOR_KERNELS"] = str(own)
    if scenario.run.launcher == "virtual":
        return _run_virtual(scenario, output, observer)
    return _run_processes(scenario, output, observer)


def _run_virtual(scenario: Scenario, output: Path, observer: Observer) -> Summary:
    from emulator.launch.preload import announce, note_compiled
    from emulator.launch.virtual import run_virtual

    announce(scenario, observer.phase)
    with _created(scenario, output, observer.phase, shared=False) as (guests, sampler):
        try:
            summary = run_virtual(guests, observer, sampler)
        except Exception as error:
            own = source_of(scenario.mechanism.name)
            blamed = None if own is None else blame(own, error)
            if blamed is None:
                raise
            raise MechanismFailed(blamed) from error
    note_compiled(scenario)
    return summary


def _run_processes(scenario: Scenario, output: Path, observer: Observer) -> Summary:
    # The fork server first: it loads and compiles on the other core while we do the rest.
    from emulator.launch.fork_server import start_fork_server

    context = start_fork_server(scenario)
    from emulator.launch.preload import announce
    from emulator.launch.processes import run_processes

    announce(scenario, observer.phase)
    with _created(scenario, output, observer.phase, shared=True) as (guests, sampler):
        return run_processes(guests, context, observer, sampler)


@contextmanager
def _created(
    scenario: Scenario, output: Path, say: Callable[[str], None], *, shared: bool
) -> Iterator[tuple["Guests", "GuestsSampler"]]:
    """The guests, and what samples them; on the way out the series of several is written."""
    from emulator.guests import create_guests
    from emulator.guests_sampler import GuestsSampler
    from emulator.guests_series import write_guests_series

    with create_guests(scenario, shared=shared, say=say) as guests:
        sampler = GuestsSampler(guests)
        try:
            yield guests, sampler
        finally:
            if len(guests) > 1 and sampler.rows:
                text = write_guests_series([guest.rows for guest in sampler.guests])
                write_atomically(output / SERIES_GUESTS, text)
