"""Whole machines in virtual time: no page is lost, none is discarded while it is in use.

`run_virtual` itself counts every page at the end and fails if one is missing; here it is also
tested that it would.
"""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from devices.memory.ram import PAGE_SIZE
from emulator.errors import RunFailed
from emulator.machine import Machine
from emulator.summary import SeriesRow, Summary
from tests.support.runs import SMALL, Simulated, simulate, small

REPORTING = [
    'mechanism={name="page_reporting",order=0,delay="100ms",capacity=512}',
    'mechanism={name="page_reporting",order=9,delay="100ms",capacity=1}',
    'mechanism={name="page_reporting",order=9,delay="2s",capacity=32}',
    'mechanism={name="page_reporting",order=10,delay="100ms",capacity=512}',
]


def assert_sound(run: Simulated, *, replayed: bool = False) -> None:
    """What holds for every run; a replayed trace ends with memory in use."""
    summary, host = run.summary, run.host[0]
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 0
    assert summary.vcpus.lost == 0
    assert (host["bad_elements"], host["broken"]) == (0, 0)
    hinting = summary.hinting
    assert hinting.reports == host["requests"]
    assert hinting.claimed_bytes == host["claimed_bytes"]
    assert 0 <= (hinting.refaulted_bytes or 0) <= (hinting.returned_bytes or 0)
    assert (hinting.returned_bytes or 0) <= (hinting.claimed_bytes or 0)
    assert summary.stranded.in_flight_bytes == 0
    last = run.rows[-1]
    percpu_bytes = summary.stranded.percpu_bytes or 0
    if not replayed:
        assert (last.guest_free_bytes or 0) + percpu_bytes == summary.guest.memory_bytes
    assert all(0 <= (row.guest_reported_bytes or 0) <= guest_free(row) for row in run.rows)


def guest_free(row: SeriesRow) -> int:
    return row.guest_free_bytes or 0


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mechanism", ['mechanism={name="off"}', *REPORTING])
def test_every_workload_is_sound_under_every_mechanism(name: str, mechanism: str) -> None:
    run = simulate(small(name, mechanism))
    assert_sound(run, replayed=name == "replay")
    if "off" in mechanism:
        assert (run.summary.hinting.reports, run.summary.hinting.returned_bytes) == (0, 0)


@pytest.mark.parametrize("ram", ["memfd", "accounted"])
@pytest.mark.parametrize("mechanism", REPORTING)
def test_a_hog_gives_its_memory_back(mechanism: str, ram: str) -> None:
    """If a batch is not larger than what the zone has above its low watermark: else no pass."""
    settings = ('guest.memory="256MiB"', f'guest.ram="{ram}"', "workload.iterations=1")
    run = simulate(small("memhog", mechanism, *settings))
    assert_sound(run)
    returned_bytes, filled_bytes = run.summary.hinting.returned_bytes or 0, peak_bytes(run)
    if "order=10" in mechanism:
        assert returned_bytes == 0
    else:
        assert returned_bytes > 0.9 * filled_bytes > 200 << 20
        assert run.summary.host.resident_bytes_end == filled_bytes - returned_bytes


def peak_bytes(run: Simulated) -> int:
    return run.summary.host.resident_bytes_peak or 0


def test_memfd_and_accounted_ram_tell_the_same_story() -> None:
    real, accounted = (
        simulate(small("churn", f'guest.ram="{ram}"')).summary for ram in ("memfd", "accounted")
    )
    for part in ("host", "hinting", "vcpus", "stranded", "oracle"):
        assert getattr(real, part) == getattr(accounted, part), part


SCENARIOS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["memhog", "churn", "page_fault1"]),
        "vcpus": st.integers(1, 6),
        "blocks": st.integers(12, 24),  # of 4 MiB
        "ram": st.sampled_from(["memfd", "accounted"]),
        "order": st.integers(0, 10),
        "capacity": st.sampled_from([1, 2, 32, 512]),
        "delay": st.sampled_from(["0s", "1ms", "100ms", "2s"]),
        "thp": st.sampled_from(["true", "false"]),
        "pageblock_order": st.sampled_from([9, 10]),
    }
)


def run_of(name: str, **given_: Any) -> Summary:
    run = simulate(
        small(
            name,
            f"guest.vcpus={given_['vcpus']}",
            f'guest.memory="{given_["blocks"] * 4}MiB"',
            f'guest.ram="{given_["ram"]}"',
            f"guest.thp={given_['thp']}",
            f"guest.pageblock_order={given_['pageblock_order']}",
            f"mechanism.order={given_['order']}",
            f"mechanism.capacity={given_['capacity']}",
            f'mechanism.delay="{given_["delay"]}"',
            *(['workload.size="4MiB"'] if name == "page_fault1" else []),
            f"run.seed={given_['seed']}",
        )
    )
    assert_sound(run)
    return run.summary


@given(random=st.random_module(), seed=st.integers(0, 2**63 - 1), scenario=SCENARIOS)
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_any_small_machine_is_sound(random: Any, seed: int, scenario: dict[str, Any]) -> None:
    run_of(seed=seed, **scenario)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("nr_free", "nr_free differs from the blocks in the page array"),
        ("isolated_pages", "isolated_pages differs from the page array"),
        ("reported_pages", "reported_pages differs from the page array"),
    ],
)
def test_a_wrong_count_fails_the_run(field: str, message: str) -> None:
    def spoil(machine: Machine, row: SeriesRow) -> None:
        if row.time_s == 0:
            counts = machine.guest["zones"][field]
            counts[(0, 3) if field == "nr_free" else 0] += 8

    with pytest.raises(RunFailed, match=f"the guest's memory is not sound: zone 0, .*{message}"):
        simulate(small("memhog"), spoil)


def test_a_lost_page_fails_the_run() -> None:
    def spoil(machine: Machine, row: SeriesRow) -> None:
        if row.time_s == 0:
            machine.guest["actors"][0]["held_pages"] += 1

    with pytest.raises(RunFailed, match="the vCPUs hold 1 pages and 0 are in use"):
        simulate(small("memhog"), spoil)


def test_a_workload_that_takes_too_long_fails_the_run() -> None:
    with pytest.raises(RunFailed, match=r"took longer than run.time_limit, 2.0 s"):
        simulate(small("memhog", 'run.time_limit="2s"'))


def test_page_size_is_that_of_the_guest() -> None:
    rows = simulate(small("memhog")).rows
    assert all((row.guest_free_bytes or 0) % PAGE_SIZE == 0 for row in rows)
