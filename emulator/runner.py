"""Runs one scenario: makes the machine, hands it to the launcher, and gives everything back."""

import os
from pathlib import Path

from emulator.config.scenario import Scenario
from emulator.errors import MechanismFailed
from emulator.guest.hinting.blame import blame
from emulator.guest.hinting.registry import source_of
from emulator.machine_check import require_machine
from emulator.observer import Observer
from emulator.summary import Summary


def run(scenario: Scenario, *, output: Path, observer: Observer) -> Summary:
    """Run a scenario to its end.

    Raises ConfigError (bad parameters), MachineLacks (with the remedy), RunFailed (a process died,
    the time limit passed, an invariant does not hold).
    """
    require_machine()
    if scenario.run.launcher == "uml":
        from emulator.uml.run_task import run_uml

        return run_uml(scenario, output=output, observer=observer)
    own = source_of(scenario.mechanism.name)
    if own is not None:  # Read when the first kernel is loaded, here and in the fork server.
        os.environ["EMULATOR_KERNELS"] = str(own)
    if scenario.run.launcher == "virtual":
        return _run_virtual(scenario, observer)
    return _run_processes(scenario, observer)


def _run_virtual(scenario: Scenario, observer: Observer) -> Summary:
    from emulator.launch.preload import announce, marker
    from emulator.launch.virtual import run_virtual
    from emulator.machine import Machine

    announce(scenario, observer.phase)
    with Machine.create(scenario, shared=False, say=observer.phase) as machine:
        try:
            summary = run_virtual(machine, observer)
        except Exception as error:
            own = source_of(scenario.mechanism.name)
            blamed = None if own is None else blame(own, error)
            if blamed is None:
                raise
            raise MechanismFailed(blamed) from error
    marker(scenario).touch()
    return summary


def _run_processes(scenario: Scenario, observer: Observer) -> Summary:
    # The fork server first: it loads and compiles on the other core while we do the rest.
    from emulator.launch.fork_server import start_fork_server

    context = start_fork_server(scenario)
    from emulator.launch.preload import announce
    from emulator.launch.processes import run_processes
    from emulator.machine import Machine

    announce(scenario, observer.phase)
    with Machine.create(scenario, shared=True, say=observer.phase) as machine:
        return run_processes(machine, context, observer)
