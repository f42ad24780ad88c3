"""Several guests on one host, in virtual time."""

from dataclasses import dataclass

import msgspec
import pytest

from emulator.config.scenario import Scenario
from emulator.guests import create_guests, scenario_of
from emulator.guests_sampler import GuestsSampler
from emulator.guests_series import write_guests_series
from emulator.launch.virtual import run_virtual
from emulator.series import write_series
from emulator.summary import Summary, check_metric, from_json, lookup, to_json
from tests.support.runs import Watcher, small

REPORTING = 'mechanism={name="page_reporting",order=4,delay="100ms",capacity=8}'


@dataclass(frozen=True, kw_only=True)
class Run:
    summary: Summary
    sampler: GuestsSampler

    def text(self) -> str:
        """All that it measured, wall-clock figures apart."""
        each = [msgspec.structs.replace(one, wall_s=None) for one in self.summary.guests]
        whole = msgspec.structs.replace(self.summary, wall_s=None, guests=each)
        series = write_guests_series([guest.rows for guest in self.sampler.guests])
        return to_json(whole) + series + write_series(self.sampler.rows)


def run_guests(scenario: Scenario) -> Run:
    with create_guests(scenario, shared=False) as guests:
        sampler = GuestsSampler(guests)
        return Run(summary=run_virtual(guests, Watcher(), sampler), sampler=sampler)


def hogs(*settings: str) -> Scenario:
    return small("memhog", REPORTING, "guests.count=3", *settings)


def test_together_their_peaks_add_up_and_apart_they_do_not() -> None:
    def peak(*settings: str) -> int:
        summary = run_guests(hogs(*settings)).summary
        assert summary.oracle.violations == 0
        return summary.host.resident_bytes_peak or 0

    off, apart = 'mechanism={name="off"}', "guests.apart='20s'"
    one = peak("guests.count=1")
    assert peak() == 3 * one
    assert one <= peak(apart) < 1.5 * one
    assert peak(off, apart) == peak(off) == 3 * peak(off, "guests.count=1")


def test_the_whole_is_the_sum_of_its_guests() -> None:
    run = run_guests(hogs("guests.apart='2s'"))
    summary, each = run.summary, run.summary.guests
    assert len(each) == 3
    for metric in (
        "guest.memory_bytes",
        "host.resident_bytes_end",
        "hinting.reports",
        "hinting.returned_bytes",
        "vcpus.operations",
        "stranded.percpu_bytes",
        "oracle.pages_checked",
    ):
        assert lookup(summary, metric) == sum(lookup(one, metric) for one in each), metric
    assert [one.phases[0].start_s for one in each] == [0, 2, 4]
    assert summary.phases[0].start_s == 0
    assert summary.phases[0].operations == sum(one.phases[0].operations or 0 for one in each)
    rows = zip(run.sampler.rows, *(guest.rows for guest in run.sampler.guests), strict=True)
    for total, *own in rows:
        assert total.resident_bytes == sum(row.resident_bytes or 0 for row in own)
        assert {row.time_s for row in own} == {total.time_s}


def test_a_guests_figures_are_found_and_written() -> None:
    summary = run_guests(hogs()).summary
    assert lookup(summary, "guests.2.host.resident_bytes_peak") == (
        summary.guests[2].host.resident_bytes_peak
    )
    for metric in ("guests.0.host.resident_bytes_peak", "guests.1.phases.0.end_s"):
        check_metric(metric)
    assert from_json(to_json(summary)) == summary


@pytest.mark.parametrize("name", ["churn", "memhog"])
def test_the_same_seed_gives_the_same_run(name: str) -> None:
    scenario = small(name, REPORTING, "guests={count=3,apart='500ms'}", "balloon={}")
    assert run_guests(scenario).text() == run_guests(scenario).text()


def test_guests_differ_in_their_seeds_only() -> None:
    scenario = small("churn", "guests.count=3")
    assert scenario_of(scenario, 0) == scenario
    seeds = {scenario_of(scenario, index).run.seed for index in range(3)}
    assert len(seeds) == 3
    each = run_guests(scenario).summary.guests
    assert len({to_json(msgspec.structs.replace(one, seed=0)) for one in each}) == 3


def test_a_manager_takes_from_all_guests_when_the_host_is_short() -> None:
    """Three hogs of 61 MiB each; the host has 160 MiB."""
    manager = 'balloon={every="100ms",statistics="50ms",manager={name="mom"}}'
    short = run_guests(hogs(manager, 'host.memory="160MiB"')).summary
    ample = run_guests(hogs(manager, 'host.memory="1GiB"')).summary
    assert short.oracle.violations == ample.oracle.violations == 0
    assert ample.balloon.inflated_bytes == 0
    assert all((guest.balloon.inflated_bytes or 0) > 0 for guest in short.guests)
