"""Whole machines on a host with too little memory, in virtual time."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from devices.memory.ram import PAGE_SIZE
from devices.memory.swap_layout import PAGE_SWAPPED
from emulator.config.requirements import require_swap
from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError
from emulator.guests import create_guests
from emulator.guests_sampler import GuestsSampler
from emulator.launch.virtual import run_virtual
from emulator.machine import Machine
from emulator.machine_parts import load_parts
from emulator.summary import SeriesRow, Summary
from tests.simulation import test_balloon, test_conservation, test_page_cache
from tests.support.runs import Simulated, Watcher, simulate, small

MIB = 1 << 20
REPORTING = test_balloon.REPORTING
ACCOUNTED = 'guest.ram="accounted"'


def host(memory_mib: int, swap_mib: int) -> tuple[str, str]:
    return (f'host.memory="{memory_mib}MiB"', f'host.swap="{swap_mib}MiB"')


def count_swapped(machine: Machine, row: SeriesRow) -> None:
    """At any time: what is in the swap has content, and the counts are those of the pages."""
    view = machine.ram.view()
    swapped, used = view.swap_marks()["mark"] == PAGE_SWAPPED, view.words != 0
    assert not np.any(swapped & ~used)
    assert np.count_nonzero(swapped) * PAGE_SIZE == row.swapped_bytes
    assert np.count_nonzero(used & ~swapped) * PAGE_SIZE == row.resident_bytes
    memory, swap = machine.scenario.host.memory_bytes, machine.scenario.host.swap_bytes
    assert memory is not None and swap is not None
    assert (row.swapped_bytes or 0) <= swap
    if not machine.host[0]["swap_full"] and machine.workload.kind != "churn":  # Of many orders.
        batch = 8 * MIB * machine.scenario.guest.vcpus  # 2048 pages, the largest of the others.
        assert (row.resident_bytes or 0) <= memory + batch


def count_all(machine: Machine, row: SeriesRow) -> None:
    count_swapped(machine, row)
    if "balloon" in machine.guest:
        test_balloon.count_pages(machine, row)


def run_short(*settings: str, name: str = "memhog") -> Simulated:
    return simulate(small(name, ACCOUNTED, REPORTING, *settings), count_all)


def test_a_hog_on_half_its_memory_keeps_its_content_and_pays() -> None:
    """61 MiB on 32: twice, 29 go out while it fills, and all come back for the check."""
    run = run_short(*host(32, 64))
    test_conservation.assert_sound(run)
    figures = run.summary.host
    assert (figures.swapped_bytes_peak or 0) >= 25 * MIB
    assert figures.swapped_bytes_end == 0
    assert figures.swap_full == 0
    out, back = figures.swap_out_bytes or 0, figures.swap_in_bytes or 0
    assert out == back + (figures.swap_dropped_bytes or 0)
    assert back >= 2 * 25 * MIB
    assert (figures.swap_wait_s or 0) >= back // PAGE_SIZE * 105e-6
    ample = run_short(*host(64, 64))
    assert ample.summary.host.swap_out_bytes == ample.summary.host.swap_wait_s == 0
    assert (ample.summary.virtual_s or 0) < (run.summary.virtual_s or 0)


def test_a_swap_that_is_too_small_is_counted_and_nothing_hangs_or_is_lost() -> None:
    run = run_short(*host(8, 4))
    test_conservation.assert_sound(run)
    figures = run.summary.host
    assert (figures.swap_full or 0) > 0
    assert figures.swapped_bytes_peak == 4 * MIB
    assert (figures.resident_bytes_peak or 0) > 50 * MIB


def test_without_a_swap_nothing_is_enforced_nor_measured() -> None:
    run = simulate(small("memhog", ACCOUNTED, REPORTING, 'host.memory="8MiB"'))
    figures = run.summary.host
    assert (figures.resident_bytes_peak or 0) > 50 * MIB
    assert figures.swapped_bytes_peak is figures.swap_wait_s is figures.swap_full is None
    assert all(row.swapped_bytes is None for row in run.rows)


def test_guests_share_what_their_host_has() -> None:
    scenario = small("memhog", ACCOUNTED, REPORTING, "guests.count=3", *host(96, 256))

    def run() -> tuple[Summary, list[SeriesRow]]:
        with create_guests(scenario, shared=False) as guests:
            sampler = GuestsSampler(guests)
            return run_virtual(guests, Watcher(), sampler), sampler.rows

    summary, rows = run()
    assert summary.oracle.violations == 0
    figures, each = summary.host, [guest.host for guest in summary.guests]
    assert all((one.swap_out_bytes or 0) > 10 * MIB for one in each)
    for name in ("swap_out_bytes", "swap_in_bytes", "swap_dropped_bytes", "swapped_bytes_end"):
        assert getattr(figures, name) == sum(getattr(one, name) for one in each), name
    assert figures.swap_wait_s == pytest.approx(sum(one.swap_wait_s or 0 for one in each))
    assert max(row.resident_bytes or 0 for row in rows) <= (96 + 3 * 2 * 8) * MIB
    assert figures.swapped_bytes_peak == max(row.swapped_bytes or 0 for row in rows)
    assert run()[1] == rows


def test_a_slower_disk_takes_longer() -> None:
    def took_s(*disk: str) -> float:
        return run_short(*host(32, 64), *disk).summary.virtual_s or 0

    normal = took_s()
    assert took_s('host.swap_read="1ms"') > normal
    assert took_s('host.swap_write="8MiB/s"') > normal


def test_the_page_cache_under_swapping() -> None:
    run = simulate(
        small("memhog", *test_page_cache.SMALL, REPORTING, ACCOUNTED, *host(24, 256)), count_all
    )
    test_page_cache.assert_sound(run)
    assert (run.summary.host.swap_in_bytes or 0) > MIB
    assert run.summary.page_cache.dirty_bytes_end == 0


def test_a_replay_pays_for_all_its_vcpus() -> None:
    short, ample = (run_short(*host(mib, 4096), name="replay").summary for mib in (8, 4096))
    assert short.oracle.violations == 0
    assert (short.host.swap_in_bytes or 0) > 0 == ample.host.swap_in_bytes
    assert (short.virtual_s or 0) > (ample.virtual_s or 0)


def test_content_that_is_lost_in_the_swap_is_a_violation() -> None:
    def lose(machine: Machine, row: SeriesRow) -> None:
        view = machine.ram.view()
        swapped = np.flatnonzero(view.swap_marks()["mark"] == PAGE_SWAPPED)
        view.words[swapped[:1]] = 1

    run = simulate(small("memhog", ACCOUNTED, REPORTING, *host(32, 64), 'run.sample="20ms"'), lose)
    assert (run.summary.oracle.violations or 0) > 0


SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "vcpus": st.integers(1, 4),
        "memory": st.sampled_from([4, 16, 40]),
        "swap": st.sampled_from([1, 16, 128]),
        "deflate_on_oom": st.sampled_from(["true", "false"]),
        "period_ms": st.sampled_from([20, 400, 3000]),
        "least": st.integers(0, 48),
        "workload": st.sampled_from(["memhog", "churn", "files"]),
    }
)


@given(random=st.random_module(), seed=st.integers(0, 2**63 - 1), machine=SETTINGS)
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
def test_any_small_machine_is_sound(random: Any, seed: int, machine: dict[str, Any]) -> None:
    """With a balloon that is never at rest, every page in one place at any time."""
    wave = f'least="{machine["least"]}MiB",most="64MiB",period="{machine["period_ms"]}ms"'
    files = machine["workload"] == "files"
    run = simulate(
        small(
            "memhog" if files else machine["workload"],
            *(test_page_cache.SMALL if files else ()),
            REPORTING,
            ACCOUNTED,
            *host(machine["memory"], machine["swap"]),
            f"guest.vcpus={machine['vcpus']}",
            f"balloon.deflate_on_oom={machine['deflate_on_oom']}",
            f'balloon.manager={{name="wave",{wave}}}',
            f"run.seed={seed}",
            'run.sample="50ms"',
        ),
        count_all,
    )
    if files:
        test_page_cache.assert_sound(run)
    else:
        test_balloon.assert_sound(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (host(64, 64), r"host.swap: only accounted RAM can be swapped out; use --set guest.ram"),
        ((ACCOUNTED, *host(7, 64), "guests.count=2"), r"7MiB is less than what 2 guests .* 8MiB"),
    ],
)
def test_what_a_host_cannot_do_is_said_in_one_line(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        require_swap(load_scenario("memhog", settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['host.swap="1GiB"'], r"swap: is for what does not fit into host.memory"),
        (["host={memory='1GiB',swap='1KiB'}"], r"swap: must be 4KiB or more"),
        (["host.swap_write='0B/s'"], r"swap_write: must be above 0"),
    ],
)
def test_a_bad_swap_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenario("memhog", settings)


def test_a_migration_of_a_swapped_guest_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host.swap: a guest that is migrated"):
        load_parts(load_scenario("migrate", [ACCOUNTED, *host(64, 64)]))
