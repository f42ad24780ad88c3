"""The guests of one host: a `Machine` each, whose scenarios differ in the seed only.

The first guest's scenario is the run's own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
import numpy as np

from emulator.config.scenario import Scenario
from emulator.machine import Machine

Guests = Sequence[Machine]


@contextmanager
def create_guests(
    scenario: Scenario, *, shared: bool, say: Callable[[str], None] = lambda _: None
) -> Iterator[list[Machine]]:
    """As many machines as the scenario has guests; raises what `Machine.create` does."""
    with ExitStack() as stack:
        machines = []
        for index in range(scenario.guests.count):
            made = Machine.create(scenario_of(scenario, index), shared=shared, say=say)
            machines.append(stack.enter_context(made))
        yield machines


def scenario_of(scenario: Scenario, index: int) -> Scenario:
    """The scenario of the guest of this number."""
    if index == 0:
        return scenario
    drawn = np.random.SeedSequence(scenario.run.seed, spawn_key=(index,)).generate_state(1)
    run = msgspec.structs.replace(scenario.run, seed=int(drawn[0]))
    return msgspec.structs.replace(scenario, run=run)


def name_of(guests: Guests, index: int) -> str:
    """What precedes a guest's part in messages: `guest 2: `; nothing if it is the only one."""
    return f"guest {index}: " if len(guests) > 1 else ""
