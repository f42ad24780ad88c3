"""Whole machines with files, in virtual time: nothing written is lost, every page in one place."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from emulator.errors import ConfigError, RunFailed
from emulator.guest.mm.layout import SLOT_DIRTY
from emulator.machine import Machine
from emulator.summary import SeriesRow
from tests.support.runs import Simulated, simulate, small

MIB = 1 << 20
REPORTING = 'mechanism={name="page_reporting",order=4,delay="100ms",capacity=8}'
SMALL = (
    'guest.memory="64MiB"',
    'workload={kind="files",files=12,size="8MiB",hot=0.2,duration="2s",idle="3s",rate="96MiB/s"}',
)


def run_files(*changes: str, sabotage: Any = None) -> Simulated:
    """A guest of 64 MiB with 96 MiB of files."""
    return simulate(small("memhog", *SMALL, REPORTING, *changes), sabotage)


def assert_sound(run: Simulated) -> None:
    """What holds for every run with files."""
    summary, host = run.summary, run.host[0]
    cache, hinting = summary.page_cache, summary.hinting
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 0
    assert (host["bad_elements"], host["broken"]) == (0, 0)
    assert hinting.claimed_bytes == host["claimed_bytes"]
    assert (hinting.returned_bytes or 0) <= (hinting.claimed_bytes or 0)
    last = run.rows[-1]
    assert last.page_cache_bytes == cache.bytes_end == summary.stranded.page_cache_bytes
    free = [last.guest_free_bytes, summary.stranded.percpu_bytes]
    places = [*free, cache.bytes_end, last.balloon_bytes]
    assert sum(place or 0 for place in places) == summary.guest.memory_bytes
    assert 0 <= (cache.disk_read_bytes or 0) <= (cache.host_read_bytes or 0)
    assert (cache.duplicate_bytes_end or 0) <= (cache.host_cache_bytes_end or 0)


@pytest.mark.parametrize("mechanism", ["off", "percpu_arrays", "page_reporting"])
def test_files_under_mechanisms_with_and_without_hooks(mechanism: str) -> None:
    noted_by_kswapd = []

    def at_sample(machine: Machine, row: SeriesRow) -> None:
        if mechanism == "percpu_arrays":  # The last array is that of the guest's kernel.
            noted_by_kswapd.append(int(machine.guest["mechanism.arrays"][-1]["captured"]))

    run = run_files(f'mechanism={{name="{mechanism}"}}', sabotage=at_sample)
    assert_sound(run)
    assert run.summary.page_cache.kswapd_bytes
    assert bool(noted_by_kswapd and noted_by_kswapd[-1]) == (mechanism == "percpu_arrays")
    assert run.summary.page_cache.dirty_bytes_end == 0


@pytest.mark.parametrize("ram", ["memfd", "accounted"])
def test_the_cache_stays_until_it_is_dropped(ram: str) -> None:
    run = run_files(f'guest.ram="{ram}"', "workload.mapped=0", "workload.anonymous=0")
    assert_sound(run)
    summary = run.summary
    phases = {phase.name: phase for phase in summary.phases}
    kept = phases["cached"].resident_bytes_end or 0
    assert kept > 35 * MIB
    assert kept - (phases["dropped"].resident_bytes_end or 0) > 25 * MIB
    assert summary.stranded.page_cache_bytes == 0
    assert summary.page_cache.dropped_bytes == run.rows[-40].page_cache_bytes
    # What the guest has dropped, the host still caches.
    assert (summary.page_cache.host_cache_bytes_end or 0) > 35 * MIB
    assert summary.page_cache.duplicate_bytes_end == 0


def test_mapped_files_stay_in_the_cache() -> None:
    run = run_files("workload.working_set=0.17", "workload.mapped=0.5", "workload.anonymous=0")
    assert_sound(run)
    cache = run.summary.page_cache
    assert 0 < (cache.bytes_end or 0) <= 8 * MIB
    assert cache.mapped_bytes_end == cache.bytes_end == cache.duplicate_bytes_end


def test_files_get_huge_pages_where_the_host_has_them() -> None:
    """Every page that is resident was made so with the 511 beside it."""
    run = run_files('guest.ram="accounted"', "host.huge_pages=true", 'mechanism={name="off"}')
    assert_sound(run)
    huge_bytes = (run.summary.host.huge_faults or 0) * 512 * 4096
    assert run.summary.host.resident_bytes_peak == huge_bytes > 32 * MIB


def test_kswapd_keeps_memory_free_and_nothing_fails() -> None:
    run = run_files("workload.drop=false")
    assert_sound(run)
    cache = run.summary.page_cache
    assert (cache.kswapd_runs or 0) > 0
    assert (cache.kswapd_bytes or 0) > 20 * MIB
    assert cache.dropped_bytes == 0
    assert run.summary.vcpus.failed_allocations == 0
    assert (cache.kswapd_bytes or 0) <= (cache.scanned_bytes or 0)


def test_node_reclaim_comes_before_kswapd() -> None:
    settings = ("page_cache.zone_reclaim=true", "workload.mapped=0")
    run = run_files(*settings)
    assert_sound(run)
    assert (run.summary.page_cache.node_bytes or 0) > 10 * MIB


def test_writers_wait_while_too_much_is_dirty() -> None:
    """Of 64 MiB, 20 % may be dirty; a batch of 2 x 16 requests of 64 KiB comes on top."""
    slow = ('page_cache.write_back="8MiB/s"', "workload.writes=1", "workload.anonymous=0")
    run = run_files(*slow, "workload.mapped=0")
    assert_sound(run)
    assert (run.summary.page_cache.dirty_bytes_peak or 0) <= 64 * MIB * 0.2 + 2 * MIB
    assert run.summary.page_cache.dirty_bytes_end == 0
    fast = run_files("workload.writes=1", "workload.anonymous=0", "workload.mapped=0")
    written = [int(it.summary.workload["written_bytes"]) for it in (run, fast)]
    assert written[0] < written[1] / 2


def test_who_finds_only_dirty_pages_waits_for_write_back() -> None:
    """All may be dirty, and memory of one's own takes nearly all there is."""
    run = run_files(
        "page_cache={dirty_background=0.9,dirty_ratio=1.0}",
        "workload.writes=1",
        "workload.mapped=0",
        "workload.anonymous=0.85",
    )
    assert_sound(run)
    assert run.summary.vcpus.failed_allocations == 0
    assert (run.summary.page_cache.written_bytes or 0) > 10 * MIB


def test_reading_is_paid_for_in_virtual_time() -> None:
    slow, fast = (
        run_files(f'page_cache.disk_read="{rate}MiB/s"', "workload.writes=0").summary
        for rate in (16, 10_000)
    )
    assert int(slow.workload["read_bytes"]) < int(fast.workload["read_bytes"]) * 0.8


def test_files_and_a_balloon_in_one_guest() -> None:
    balloon = (
        'balloon.manager={name="steps",steps=[{at="500ms",memory="32MiB"},'
        '{at="4s",memory="64MiB"}]}'
    )
    run = run_files(balloon, "workload.anonymous=0.1")
    assert_sound(run)
    assert (run.summary.balloon.inflated_bytes or 0) > 20 * MIB


def test_a_run_repeats_to_the_byte() -> None:
    first, second = run_files(), run_files()
    assert first.rows == second.rows
    assert first.summary.page_cache == second.summary.page_cache
    assert run_files("run.seed=2").rows != first.rows


SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "guest.vcpus": st.integers(1, 4),
        "guest.ram": st.sampled_from(['"memfd"', '"accounted"']),
        "guest.pageblock_order": st.sampled_from([9, 10]),
        "workload.files": st.integers(1, 30),
        "workload.size": st.sampled_from(['"4KiB"', '"100KiB"', '"3MiB"', '"12MiB"']),
        "workload.hot": st.sampled_from([0, 0.5, 1]),
        "workload.working_set": st.sampled_from([0, 0.3, 1]),
        "workload.mapped": st.sampled_from([0, 0.5, 1]),
        "workload.writes": st.sampled_from([0, 0.3, 1]),
        "workload.request": st.sampled_from(['"4KiB"', '"20KiB"', '"1MiB"']),
        "workload.anonymous": st.sampled_from([0, 0.3, 0.9]),
        "workload.duration": st.sampled_from(['"100ms"', '"1s"']),
        "workload.drop": st.sampled_from(["true", "false"]),
        "page_cache.read_ahead": st.sampled_from(['"4KiB"', '"128KiB"', '"4MiB"']),
        "page_cache.write_back": st.sampled_from(['"1MiB/s"', '"1GiB/s"']),
        "page_cache.dirty_expire": st.sampled_from(['"0s"', '"500ms"', '"30s"']),
        "page_cache.zone_reclaim": st.sampled_from(["true", "false"]),
        "run.seed": st.integers(0, 2**63 - 1),
    }
)


@given(random=st.random_module(), given_=SETTINGS)
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_any_small_machine_with_files_is_sound(random: Any, given_: dict[str, Any]) -> None:
    assert_sound(run_files(*(f"{key}={value}" for key, value in given_.items())))


# --- What would be found.


def test_a_dirty_page_that_is_forgotten_fails_the_run() -> None:
    def spoil(machine: Machine, row: SeriesRow) -> None:
        slots = machine.guest["page_cache.slots"]
        dirty = slots["flags"] & SLOT_DIRTY != 0
        if row.time_s > 1 and dirty.any():
            slots["flags"][dirty.nonzero()[0][:1]] &= 0xFFFFFFFF ^ SLOT_DIRTY

    with pytest.raises(RunFailed, match=r"not sound: the page cache, .*(unwritten|differ)"):
        run_files(sabotage=spoil)


def test_a_cached_page_that_is_discarded_is_a_violation() -> None:
    def spoil(machine: Machine, row: SeriesRow) -> None:
        if row.time_s == 1:
            slots = machine.guest["page_cache.slots"]
            pfns = slots["pfn"][slots["pfn"] != 0xFFFFFFFF]
            view = machine.ram.view()
            view.words[pfns.astype(int) << view.shift] = 0

    run = run_files('guest.ram="accounted"', sabotage=spoil)
    assert (run.summary.oracle.violations or 0) > 0


def test_a_page_cache_without_files_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"page_cache: the workload memhog has no files"):
        simulate(small("memhog", "page_cache.zone_reclaim=true"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('page_cache.read_ahead="6KiB"', r"page_cache.read_ahead: .* whole pages"),
        ("page_cache.dirty_ratio=0.05", r"page_cache.dirty_background: 0.1 .* below dirty_ratio"),
        ('page_cache.write_back="1B/s"', r"page_cache.write_back: must be at least 4KiB/s"),
        ("page_cache.min_unmapped_ratio=2", r"page_cache.min_unmapped_ratio: 2.* from 0 to 1"),
        ("page_cache.swap=1", r"page_cache.swap: unknown key"),
        ('workload.size="6KiB"', r"workload.size: .* whole pages"),
        ("workload.files=1000000", r"workload.files: .* more than 1TiB"),
        ("workload.hot=1.5", r"workload.hot: 1.5 is not between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_files(setting)
