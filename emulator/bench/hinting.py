"""What reporting free pages costs page_fault1: the scenario under it and without, in turns."""

from collections.abc import Mapping, Sequence
from typing import Final

from emulator.bench.series import Measurement
from emulator.config.scenario import load_scenario
from emulator.errors import RunFailed
from emulator.observer import Observer
from emulator.scale import BASELINE, run_scale

_REPEATS: Final = 5
_DURATION: Final = "5s"  # Two of the passes that come 2 s after a free, and the third begun.


def measure_page_fault1(
    names: Sequence[str],
    observer: Observer,
    *,
    overrides: Sequence[str] = (f'workload.duration="{_DURATION}"',),
    repeats: int = _REPEATS,
) -> Mapping[str, Measurement]:
    """`hinting.page_fault1_ratio`: one value for each pair of runs."""
    scenario = load_scenario("page_fault1", overrides)
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
