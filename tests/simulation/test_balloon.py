"""Whole machines with a balloon, in virtual time: beside the hinting task, and under pressure."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from emulator.errors import ConfigError, RunFailed
from emulator.guest.mm.check_kernels import CHECK_MESSAGES, check_zone
from emulator.guest.mm.layout import BALLOON, NR_KINDS
from emulator.machine import Machine
from emulator.summary import SeriesRow
from tests.support.runs import Simulated, simulate, small

MIB = 1 << 20
REPORTING = 'mechanism={name="page_reporting",order=4,delay="100ms",capacity=8}'
CLASSIC = 'mechanism={name="balloon"}'


def steps(*targets: tuple[float, int]) -> str:
    """A balloon that leaves so many MiB to the guest from such a second on."""
    tables = ",".join(f'{{at="{at_s}s",memory="{mib}MiB"}}' for at_s, mib in targets)
    return f'balloon.manager={{name="steps",steps=[{tables}]}}'


def assert_sound(run: Simulated) -> None:
    """What holds for every run with a balloon."""
    summary, host = run.summary, run.host[0]
    balloon, hinting = summary.balloon, summary.hinting
    assert summary.oracle.violations == 0
    assert (host["bad_elements"], host["broken"]) == (0, 0)
    assert hinting.reports == host["requests"]
    assert hinting.claimed_bytes == host["claimed_bytes"]
    inflated, deflated = balloon.inflated_bytes or 0, balloon.deflated_bytes or 0
    assert balloon.balloon_bytes_end == inflated - deflated == host["balloon_bytes"]
    last = run.rows[-1]
    assert last.balloon_bytes == balloon.balloon_bytes_end
    places = (last.guest_free_bytes, summary.stranded.percpu_bytes, last.balloon_bytes)
    assert sum(place or 0 for place in places) == summary.guest.memory_bytes


def count_pages(machine: Machine, row: SeriesRow) -> None:
    """At any time of a run: every page is in one place, and so many are in the balloon."""
    mm, state = machine.memory(), machine.guest["balloon"][0]
    counts = np.zeros(NR_KINDS, np.int64)
    for z in range(len(mm.zones)):
        error, where = check_zone(mm, z, counts)
        assert error == 0, f"{row.time_s} s, zone {z}, page {where}: {CHECK_MESSAGES[error]}"
    assert counts.sum() == mm.kernel[0]["nr_pages"]
    assert counts[BALLOON] == state["pages"] + state["between"]


@pytest.mark.parametrize("ram", ["memfd", "accounted"])
@pytest.mark.parametrize("mechanism", [CLASSIC, REPORTING])
def test_a_hog_has_back_what_it_needs(mechanism: str, ram: str) -> None:
    """64 MiB, of which the balloon takes 56 and the hog wants 95 %."""
    run = simulate(
        small("memhog", mechanism, steps((0, 8)), f'guest.ram="{ram}"', 'workload.delay="2s"')
    )
    assert_sound(run)
    summary = run.summary
    assert (run.rows[15].balloon_bytes, run.rows[15].time_s) == (56 * MIB, 1.5)
    assert summary.vcpus.failed_allocations == 0
    assert summary.balloon.oom_calls == (summary.balloon.oom_bytes or 0) // MIB
    assert (summary.balloon.oom_bytes or 0) > 45 * MIB
    if mechanism == REPORTING:  # What the hog left behind comes back by itself.
        assert (summary.host.resident_bytes_end or 0) < 8 * MIB


def test_without_deflate_on_oom_the_hog_fails() -> None:
    settings = ("balloon.deflate_on_oom=false", 'workload.delay="2s"', "workload.iterations=1")
    run = simulate(small("memhog", CLASSIC, steps((0, 8)), *settings))
    assert_sound(run)
    assert run.summary.vcpus.failed_allocations == 2  # Each vCPU's hog, once.
    assert run.summary.balloon.oom_calls == 0
    assert run.summary.balloon.balloon_bytes_end == 56 * MIB


def test_the_target_is_followed_both_ways() -> None:
    targets = steps((1, 40), (2, 56), (3, 0), (4, 500))
    work = ('workload={kind="memhog",fraction=0.01,iterations=1,idle="6s"}',)
    run = simulate(small("memhog", CLASSIC, targets, *work, "guest.vcpus=1"))
    assert_sound(run)
    at = {row.time_s: (row.balloon_bytes or 0) / MIB for row in run.rows}
    assert [at[s] for s in (0.9, 1.1, 2.1)] == [0, 24, 8]
    targets_of = {row.time_s: (row.balloon_target_bytes or 0) / MIB for row in run.rows}
    assert [targets_of[s] for s in (0.9, 1.1, 2.1, 3.9, 4.1)] == [0, 24, 8, 64, 0]
    # All of it is more than a guest can give: what lies below the min watermark stays.
    assert 56 < at[3.9] < 64
    assert run.summary.balloon.shortfalls == pytest.approx(5, abs=1)
    assert at[4.1] == 0  # And more than it has is all of it.
    assert run.summary.balloon.wishes_cut == 3
    assert run.summary.balloon.targets_reached == 3  # All but the third.
    assert run.summary.balloon.targets == 4


def test_reporting_beside_a_balloon_reports_what_the_balloon_gives_back() -> None:
    run = simulate(small("memhog", REPORTING, steps((0, 16), (2, 64)), "workload.iterations=1"))
    assert_sound(run)
    balloon, hinting = run.summary.balloon, run.summary.hinting
    assert balloon.balloon_bytes_end == 0
    assert (hinting.claimed_bytes or 0) > (balloon.inflated_bytes or 0)


def test_what_was_reported_before_a_balloon_finds_nothing_behind_it() -> None:
    """A hog has touched 95 % of 64 MiB and is gone; 5 s later the balloon takes 48 MiB."""
    hog = (steps((6, 16)), "workload.iterations=1", 'workload.idle="8s"', "guest.vcpus=1")
    inflated = 48 * MIB
    every_page = 'mechanism={name="page_reporting",order=0,delay="100ms",capacity=4}'
    reporting = simulate(small("memhog", every_page, *hog))
    classic = simulate(small("memhog", CLASSIC, *hog))
    for run in (reporting, classic):
        assert_sound(run)
        assert run.summary.balloon.inflated_bytes == inflated
    # All that is free was reported one by one, but for per-CPU lists, which a balloon leaves alone.
    assert reporting.summary.balloon.inflated_returned_bytes == 0
    # Nothing else gave memory back: what came back came from the balloon, and so residency fell.
    found = classic.summary.balloon.inflated_returned_bytes or 0
    assert found == classic.summary.hinting.returned_bytes
    before = max(row.resident_bytes or 0 for row in classic.rows)
    assert found == before - (classic.rows[-1].resident_bytes or 0)
    # At worst all pages that were never touched, 5 % of the guest, are among those that it took.
    untouched = 64 * MIB - before
    assert inflated - untouched <= found <= inflated
    assert untouched == pytest.approx(0.05 * 64 * MIB, rel=0.02)


@pytest.mark.parametrize("name", ["churn", "page_fault1", "replay"])
def test_every_workload_goes_on_above_a_balloon(name: str) -> None:
    memory = 64 if name != "replay" else 2048
    run = simulate(small(name, REPORTING, steps((0, memory * 3 // 4), (0.2, memory // 2))))
    assert run.summary.oracle.violations == 0
    assert (run.summary.balloon.inflated_bytes or 0) > 0


def test_a_page_that_left_the_balloon_unseen_fails_the_run() -> None:
    def lose(machine: Machine, row: SeriesRow) -> None:
        if row.time_s == 1.0:
            machine.guest["balloon"][0]["pages"] -= 1

    with pytest.raises(RunFailed, match=r"the balloon holds -?\d+ pages, \d+ are marked so"):
        simulate(small("memhog", CLASSIC, steps((0, 32)), "workload.iterations=1"), lose)


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = small("churn", REPORTING, 'balloon.manager={name="band"}', 'balloon.every="50ms"')
    first, second = simulate(scenario), simulate(scenario)
    assert first.rows == second.rows
    assert first.summary.balloon == second.summary.balloon


def test_a_round_trip_has_its_price() -> None:
    """For each 256 pages: an exit, a wake-up, the host's work, and the locks of 256 frees."""
    work = ("workload.iterations=1", 'workload.delay="2s"', "guest.vcpus=1", "guest.ram=accounted")
    free_of_charge = simulate(small("memhog", CLASSIC, steps((0, 8)), *work)).summary
    priced = simulate(small("memhog", CLASSIC, steps((0, 8)), *work, "cost={}")).summary
    assert free_of_charge.balloon.oom_wait_s is None
    assert priced.vcpus.failed_allocations == 0
    calls, waited_s = priced.balloon.oom_calls or 0, priced.balloon.oom_wait_s or 0
    assert calls == free_of_charge.balloon.oom_calls
    assert 48e-6 < waited_s / calls < 100e-6
    fill = [next(p for p in s.phases if p.name == "fill 1") for s in (free_of_charge, priced)]
    took_s = [phase.end_s - phase.start_s for phase in fill]
    assert took_s[1] - took_s[0] > waited_s


def test_wishes_that_cannot_be_are_cut_and_counted() -> None:
    manager = 'balloon.manager={name="wave",least="0B",most="1GiB",period="2s"}'
    run = simulate(small("memhog", CLASSIC, manager, 'balloon.every="100ms"'))
    assert_sound(run)
    assert (run.summary.balloon.wishes_cut or 0) > 0


def test_a_balloon_manager_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"balloon.manager.name: unknown balloon manager 'wve'"):
        simulate(small("memhog", 'balloon.manager={name="wve"}'))


MACHINES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "vcpus": st.integers(1, 4),
        "blocks": st.integers(12, 24),  # of 4 MiB
        "deflate_on_oom": st.sampled_from(["true", "false"]),
        "every_ms": st.sampled_from([5, 50, 500]),
        "period_ms": st.sampled_from([20, 400, 3000]),
        "least": st.integers(0, 48),
        "mechanism": st.sampled_from([CLASSIC, REPORTING, 'mechanism={name="bitmap"}']),
        "workload": st.sampled_from(["memhog", "churn"]),
    }
)


@given(random=st.random_module(), seed=st.integers(0, 2**63 - 1), machine=MACHINES)
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_any_small_machine_is_sound(random: Any, seed: int, machine: dict[str, Any]) -> None:
    """Targets that change faster than they can be followed, and below what the guest can give."""
    wave = f'least="{machine["least"]}MiB",most="64MiB",period="{machine["period_ms"]}ms"'
    run = simulate(
        small(
            machine["workload"],
            machine["mechanism"],
            f"guest.vcpus={machine['vcpus']}",
            f'guest.memory="{machine["blocks"] * 4}MiB"',
            f"balloon.deflate_on_oom={machine['deflate_on_oom']}",
            f'balloon.every="{machine["every_ms"]}ms"',
            f'balloon.manager={{name="wave",{wave}}}',
            f"run.seed={seed}",
            'run.sample="20ms"',
        ),
        count_pages,
    )
    assert_sound(run)


def test_the_summary_of_a_guest_without_a_balloon_says_nothing_of_one() -> None:
    run = simulate(small("memhog", 'mechanism={name="off"}', "workload.iterations=1"))
    assert run.summary.balloon.balloon_bytes_end is None
    assert all(row.balloon_bytes is None for row in run.rows)
