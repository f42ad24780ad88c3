"""What reporting free pages costs page_fault1: the scenario under it and without, in turns."""

from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from typing import Final

from emulator.bench.series import Measurement
from emulator.config.scenario import load_scenario, with_mechanism
from emulator.errors import RunFailed
from emulator.launch.fork_server import start_fork_server
from emulator.observer import Observer
from emulator.scale import BASELINE, run_scale

_REPEATS: Final = 5
_DURATION: Final = "6s"  # Three of the passes that come 2 s after a free.


def start_loaded_fork_server() -> ForkServerContext:
    """The fork server of a whole benchmark, with all that its series run in processes.

    There is one for the life of a process, and what it has not loaded each child loads by itself,
    within the time that is measured; so every series names the same.
    """
    scenario = load_scenario("page_fault1")
    return start_fork_server(with_mechanism(scenario, BASELINE), scenario)


def measure_page_fault1(
    names: Sequence[str],
    observer: Observer,
    *,
    overrides: Sequence[str] = (f'workload.duration="{_DURATION}"',),
    repeats: int = _REPEATS,
) -> Mapping[str, Measurement]:
    """`hinting.page_fault1_ratio`: one value for each pair of runs."""
    scenario = load_scenario("page_fault1", overrides)
    start_loaded_fork_server()
    reporting = scenario.mechanism.name
    table = run_scale(scenario, [scenario.guest.vcpus], [BASELINE, reporting], repeats, observer)
    without, under = table.rows
    if without.violations or under.violations:
        raise RunFailed("the oracle found pages that were discarded while in use")
    ratios = tuple(1 + percent / 100 for percent in under.differences if percent is not None)
    note = ""
    if without.per_s is not None and under.per_s is not None:
        off, on = without.per_s.median, under.per_s.median
        note = f"{off:,.0f} pages/s off, {on:,.0f} pages/s under {reporting}"
    return {name: Measurement(ratios, note) for name in names}
