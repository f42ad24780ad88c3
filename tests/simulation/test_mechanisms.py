"""Every mechanism, whatever the order of allocations, frees and the host's answers.

No page is lost, none is reported while it is in use (the oracle finds that when the page is
freed), and no mark stays on a page that is allocated.  The schedule of all tasks is drawn with the
seed; how long the host has blocks in its hands is drawn, too.  All pages are counted at every
sample, and `run_virtual` counts them at the end.
"""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from emulator.config.scenario import load_scenario
from emulator.config.toml import dumps
from emulator.guest.hinting.registry import MECHANISMS
from emulator.guest.mm.check_kernels import CHECK_MESSAGES, check_zone
from emulator.guest.mm.layout import ALLOCATED, MIGRATETYPE_MASK, NR_KINDS, PCP
from emulator.machine import Machine
from emulator.summary import SeriesRow, Summary
from tests.support.runs import simulate, small

Parameters = dict[str, Any]
_SCAN: dict[str, st.SearchStrategy[Any]] = {
    "order": st.sampled_from([0, 3, 9]),
    "high_water": st.sampled_from([1, 4, 32]),
    "capacity": st.sampled_from([1, 32]),
    "delay": st.sampled_from(["1ms", "20ms"]),
}
#: Of its own test, of those of balloons, and of all that report something.
NOT_HERE = {"free_page_hint", "balloon", "balloon_cache_first", "off"}
#: The parameters that each mechanism is tried with.
PARAMETERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "aeration": _SCAN,
    "page_hinting": _SCAN,
    "page_reporting": {
        "order": st.sampled_from([0, 3, 9]),
        "delay": st.sampled_from(["0s", "1ms", "20ms"]),
        "capacity": st.sampled_from([1, 32]),
    },
    "percpu_arrays": {"entries": st.sampled_from([8, 100, 1000]), "largest_only": st.booleans()},
    "bitmap": {
        "order": st.sampled_from([0, 3, 9]),
        "capacity": st.sampled_from([1, 16]),
        "threshold": st.sampled_from([1, 16]),
        "clear_locked": st.booleans(),
        "look_again": st.booleans(),
    },
    "idle_age": {
        "order": st.sampled_from([0, 3, 9]),
        "age": st.sampled_from(["0s", "10ms"]),
        "capacity": st.sampled_from([1, 32]),
        "interval": st.sampled_from(["1ms", "20ms"]),
        "hint_list": st.booleans(),
    },
}
GUESTS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "vcpus": st.integers(1, 4),
        "level": st.sampled_from([0.3, 0.9]),
        "order_max": st.sampled_from([0, 4, 10]),
        "discard": st.sampled_from(["16MiB/s", "1GiB/s"]),
        "zones": st.booleans(),
    }
)
ZONES = 'guest.zones=[{name="DMA32",memory="16MiB"},{name="NORMAL",memory="32MiB"}]'


MIGRATE = (
    'workload.start="50ms"',
    'workload.after="50ms"',
    'workload.rate="256MiB/s"',
    'guest.memory="64MiB"',
    'run.launcher="virtual"',
    'run.sample="20ms"',
)


def require_sound(machine: Machine, row: SeriesRow) -> None:
    """Count every page while the run goes on, and look at the marks."""
    mm = machine.memory()
    counts = np.zeros(NR_KINDS, np.int64)
    for z in range(len(mm.zones)):
        error, where = check_zone(mm, z, counts)
        assert error == 0, f"{row.time_s} s, zone {z}, page {where}: {CHECK_MESSAGES[error]}"
    pages = mm.pages[: int(mm.kernel[0]["nr_pages"])]
    assert int(counts.sum()) == len(pages)
    marks = pages["mark"][(pages["kind"] == ALLOCATED) | (pages["kind"] == PCP)]
    assert (marks <= MIGRATETYPE_MASK).all(), f"{row.time_s} s: a mark on a page in use"


def run_under(name: str, parameters: Parameters, guest: dict[str, Any]) -> Summary:
    mechanism = dumps({"name": name, **parameters}).strip().replace("\n", ",")
    scenario = small(
        "churn",
        f"mechanism={{{mechanism}}}",
        'guest.memory="48MiB"',
        'guest.ram="accounted"',
        f"guest.vcpus={guest['vcpus']}",
        'workload.duration="100ms"',
        'workload.idle="100ms"',
        f"workload.level={guest['level']}",
        f"workload.order_max={guest['order_max']}",
        f'host.discard="{guest["discard"]}"',
        f"run.seed={guest['seed']}",
        'run.sample="5ms"',
        *([ZONES] if guest["zones"] else []),
    )
    summary = simulate(scenario, require_sound).summary
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 0
    return summary


def test_every_mechanism_is_tried() -> None:
    assert PARAMETERS.keys() | NOT_HERE == MECHANISMS.keys()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_no_page_is_lost_reported_in_use_or_marked(name: str) -> None:
    reports: list[int] = []

    @given(
        random=st.random_module(), parameters=st.fixed_dictionaries(PARAMETERS[name]), guest=GUESTS
    )
    @settings(max_examples=12, deadline=None, phases=[Phase.generate], derandomize=True)
    def tried(random: Any, parameters: Parameters, guest: dict[str, Any]) -> None:
        reports.append(run_under(name, parameters, guest).hinting.reports or 0)

    tried()
    assert sum(reports) > 0


def test_free_page_hint_loses_none_if_it_waits() -> None:
    blocks: list[int] = []

    @given(
        random=st.random_module(),
        seed=st.integers(0, 2**32),
        grow=st.sampled_from([0.0, 0.4]),
        order=st.sampled_from([3, 9, 10]),
    )
    @settings(max_examples=12, deadline=None, phases=[Phase.generate], derandomize=True)
    def tried(random: Any, seed: int, grow: float, order: int) -> None:
        scenario = load_scenario(
            "migrate",
            [
                *MIGRATE,
                f"mechanism.order={order}",
                f"workload.grow={grow}",
                f"run.seed={seed}",
            ],
        )
        summary = simulate(scenario, require_sound).summary
        assert summary.workload["completed"] == 1
        assert summary.oracle.violations == 0
        blocks.append(summary.hinting.blocks or 0)

    tried()
    assert sum(blocks) > 0
