"""Whole machines, small: scenarios that take a fraction of a second in virtual time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario, load_scenario
from emulator.guest.hinting.cycle import Mechanism
from emulator.launch.virtual import run_virtual
from emulator.machine import Machine
from emulator.machine_parts import load_parts
from emulator.observer import NullObserver, Observer
from emulator.summary import SeriesRow, Summary

# What makes each scenario small; the replay's excerpt is, with a guest of accounted RAM.
SMALL: Final = {
    "memhog": ('workload.idle="3s"', 'guest.memory="64MiB"'),
    "page_fault1": (
        'workload.warm_up="100ms"',
        'workload.duration="500ms"',
        'workload.size="8MiB"',
        'guest.memory="64MiB"',
        "host.huge_pages=false",
    ),
    "churn": ('workload.duration="200ms"', 'workload.idle="3s"', 'guest.memory="64MiB"'),
    "replay": (),
    "trickle": (
        'workload.rate="64MiB"',
        'workload.idle="3s"',
        "guest.zones=[]",
        'guest.memory="64MiB"',
    ),
    "ageing": (
        'workload.duration="8s"',
        'workload.period="4s"',
        'workload.long="4s"',
        'workload.medium="2s"',
        'workload.idle="3s"',
        'guest.memory="64MiB"',
    ),
    "build": (
        *('guest.memory="64MiB"', "workload.jobs=6", 'workload.compiler="3MiB"'),
        *('workload.assembler="1MiB"', 'workload.assembly="256KiB"', 'workload.object="64KiB"'),
        *('workload.rate="16MiB/s"', 'workload.idle="3s"'),
    ),
}


def small(name: str, *settings: str) -> Scenario:
    """The scenario `name`, small, in virtual time, and without its expectations."""
    virtual = ('run.launcher="virtual"', "expect=[]")
    return load_scenario(name, [*SMALL[name], *virtual, *settings])


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A run in virtual time, and what it left behind."""

    summary: Summary
    rows: list[SeriesRow]
    host: npt.NDArray[Any]  # HOST[1]


class Watcher(NullObserver):
    """Keeps the samples; `at_sample` is called with each, while the run goes on."""

    def __init__(self, at_sample: Callable[[SeriesRow], None] | None = None) -> None:
        self.rows: list[SeriesRow] = []
        self.events: list[str] = []
        self._at_sample = at_sample

    def sample(self, row: SeriesRow) -> None:
        self.rows.append(row)
        if self._at_sample is not None:
            self._at_sample(row)

    def event(self, text: str) -> None:
        self.events.append(text)


def simulate(
    scenario: Scenario,
    sabotage: Callable[[Machine, SeriesRow], None] | None = None,
    mechanism: Mechanism | None = None,
) -> Simulated:
    """Run it in virtual time, with `mechanism` if it has none of its own to go by.

    `sabotage` is called at each sample, while the run goes on.
    """
    own, workload = load_parts(scenario)
    parts = (own if mechanism is None else mechanism, workload)
    with Machine.create_for(scenario, *parts, shared=False, say=lambda text: None) as machine:

        def at_sample(row: SeriesRow) -> None:
            if sabotage is not None:
                sabotage(machine, row)

        watcher = Watcher(at_sample)
        summary = run_virtual([machine], watcher)
        return Simulated(summary=summary, rows=watcher.rows, host=np.copy(machine.host))


_: type[Observer] = Watcher
