"""Runs one scenario: makes the machine, hands it to the launcher, and gives everything back."""

from pathlib import Path

from emulator.config.scenario import Scenario
from emulator.machine_check import require_machine
from emulator.observer import Observer
from emulator.summary import Summary


def run(scenario: Scenario, *, output: Path, observer: Observer) -> Summary:
    """Run a scenario to its end.

    Raises ConfigError (bad parameters), MachineLacks (with the remedy), RunFailed (a process died,
    the time limit passed, an invariant does not hold).
    """
    require_machine()
    if scenario.run.launcher == "virtual":
        return _run_virtual(scenario, observer)
    from emulator.launch.processes import run_processes

    return run_processes(scenario, observer)


def _run_virtual(scenario: Scenario, observer: Observer) -> Summary:
    from emulator.launch.virtual import run_virtual
    from emulator.machine import Machine

    with Machine.create(scenario) as machine:
        return run_virtual(machine, observer)
