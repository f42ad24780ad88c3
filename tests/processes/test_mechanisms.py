"""Every mechanism in real processes with 1, 2, 4 and 8 vCPUs: nothing lost, nothing in use taken.

Each run counts every page at its end and fails if one is missing; the oracle finds pages that were
discarded while in use.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from emulator.config.scenario import ROOT, to_toml
from emulator.guest.hinting.registry import MECHANISMS
from tests.support.real_runs import orphaned_segments, real

pytestmark = pytest.mark.slow

VCPUS = (1, 2, 4, 8)
CHURN = 'workload={kind="churn",duration="500ms",idle="300ms",order_max=10}'
MIGRATE = (
    'workload={kind="migrate",start="1s",after="100ms",level=0.2,rate="32MiB/s",'
    'bandwidth="512MiB/s",rounds_max=4}'
)
MORE = 'guest.memory="512MiB"'  # Of which there are large blocks left for hints.
#: So small that all of them report many times within half a second.
UNDER = {
    "off": ('mechanism={name="off"}', CHURN),
    "percpu_arrays": ('mechanism={name="percpu_arrays",entries=100}', CHURN),
    "bitmap": ('mechanism={name="bitmap",order=3,capacity=4}', CHURN),
    "aeration": (
        'mechanism={name="aeration",order=3,high_water=4,delay="5ms",capacity=8}',
        CHURN,
    ),
    "page_hinting": (
        'mechanism={name="page_hinting",order=3,high_water=4,delay="5ms",capacity=8}',
        CHURN,
    ),
    "idle_age": ('mechanism={name="idle_age",order=3,age="5ms",interval="5ms"}', CHURN),
    "balloon": (
        'mechanism={name="balloon"}',
        CHURN,
        'balloon.manager={name="steps",steps=[{at="100ms",memory="96MiB"}]}',
    ),
    "balloon_cache_first": (
        'mechanism={name="balloon_cache_first",reclaim_cache_first=true}',
        'workload={kind="files",files=12,size="8MiB",duration="500ms",idle="300ms"}',
        "workload.anonymous=0.1",
        'balloon={deflate_on_oom=false,manager={name="steps",steps=[{at="100ms",memory="64MiB"}]}}',
    ),
    "page_reporting": ('mechanism={name="page_reporting",order=3,delay="5ms",capacity=8}', CHURN),
    "free_page_hint": (
        'mechanism={name="free_page_hint",wait_for_ack=true}',
        MIGRATE,
        MORE,
    ),
}


@pytest.fixture(scope="module")
def summaries() -> dict[tuple[str, int], dict[str, Any]]:
    runs = [(name, vcpus) for name in UNDER for vcpus in VCPUS]
    scenarios = [
        real(
            "churn",
            *UNDER[name],
            'run.launcher="processes"',
            f"guest.vcpus={vcpus}",
        )
        for name, vcpus in runs
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.sweep"],
        input=json.dumps([to_toml(scenario) for scenario in scenarios]),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(runs, map(json.loads, done.stdout.splitlines()), strict=True))


def test_every_mechanism_is_run() -> None:
    assert UNDER.keys() == MECHANISMS.keys()


@pytest.mark.parametrize("vcpus", VCPUS)
@pytest.mark.parametrize("name", UNDER)
def test_it_is_sound(
    summaries: dict[tuple[str, int], dict[str, Any]], name: str, vcpus: int
) -> None:
    summary = summaries[name, vcpus]
    assert "failed" not in summary, summary
    assert (summary["mechanism"], summary["guest"]["vcpus"]) == (name, vcpus)
    assert summary["oracle"]["violations"] == 0
    assert summary["oracle"]["pages_checked"] > 10_000
    assert summary["vcpus"]["lost"] == 0
    if not name.startswith("balloon"):  # Whether one inflates, its manager decides by what it sees.
        assert (summary["hinting"]["blocks"] > 0) == (name != "off")
    assert orphaned_segments() == set()
