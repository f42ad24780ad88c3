"""Every scenario file loads, asks a question, and can be run as it stands."""

import pytest

from emulator.commands.run import require_runnable
from emulator.config.scenario import SCENARIOS, load_scenario, scenario_names
from emulator.config.toml import dumps
from emulator.guest.hinting.registry import MECHANISMS, load_mechanism
from emulator.workloads.registry import WORKLOADS, load_workload


@pytest.mark.parametrize("name", scenario_names())
def test_it_loads_and_can_run(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.question.endswith("?")
    assert scenario.expect, "a scenario expects something, at least no violation"
    require_runnable(scenario)
    load_mechanism(scenario.mechanism.name, scenario.mechanism.parameters, where=name)
    load_workload(scenario.workload.kind, scenario.workload.parameters, where=name)


@pytest.mark.parametrize("name", scenario_names())
def test_the_first_key_asks_the_question(name: str) -> None:
    lines = (SCENARIOS / f"{name}.toml").read_text().splitlines()
    first = next(line for line in lines if line and not line.startswith("#"))
    assert first.startswith("question = ")
    assert dumps({"question": load_scenario(name).question}).strip() == first


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_every_mechanism_starts_with_its_sources_constants(name: str) -> None:
    mechanism = load_mechanism(name, {}, where=name)
    assert mechanism.name == name


def test_every_workload_has_a_scenario() -> None:
    assert {load_scenario(name).workload.kind for name in scenario_names()} == set(WORKLOADS)
