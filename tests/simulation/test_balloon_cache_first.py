"""Whole machines whose balloon takes page cache first, in virtual time: on, off, and switched."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from emulator.errors import ConfigError
from tests.support.runs import Simulated, simulate, small

MIB = 1 << 20
FILES = (
    'guest.memory="64MiB"',
    'guest.ram="accounted"',
    'workload={kind="files",files=12,size="8MiB",hot=0.2,duration="2s",idle="1s",rate="96MiB/s"}',
    "workload.anonymous=0.1",
)
OFF = 'mechanism={name="balloon_cache_first"}'
ON = 'mechanism={name="balloon_cache_first",reclaim_cache_first=true}'


def steps(*targets: str) -> str:
    return f'balloon={{deflate_on_oom=false,manager={{name="steps",steps=[{",".join(targets)}]}}}}'


TWICE = steps('{at="1s",memory="40MiB"}', '{at="2s",memory="24MiB"}')


def run_under(*changes: str) -> Simulated:
    run = simulate(small("memhog", *FILES, *changes))
    summary, host, last = run.summary, run.host[0], run.rows[-1]
    assert summary.oracle.violations == 0
    assert (host["bad_elements"], host["broken"]) == (0, 0)
    percpu, cached = summary.stranded.percpu_bytes, summary.page_cache.bytes_end
    places = sum(
        place or 0 for place in (last.guest_free_bytes, percpu, cached, last.balloon_bytes)
    )
    # What is not there was taken for the balloon, and the host not told yet: a batch at most.
    assert 0 <= (summary.guest.memory_bytes or 0) - places <= MIB
    return run


def test_switched_off_it_is_the_classic_balloon() -> None:
    classic, off = run_under(TWICE, 'mechanism={name="balloon"}'), run_under(TWICE, OFF)
    assert off.rows == classic.rows
    assert off.summary.page_cache == classic.summary.page_cache
    assert off.summary.balloon.hinted_fills == 0


def test_switched_on_it_reclaims_what_is_clean_and_not_mapped() -> None:
    off, on = (run_under(TWICE, way).summary for way in (OFF, ON))
    assert (off.page_cache.cache_first_bytes, off.balloon.balloon_bytes_end) == (0, 40 * MIB)
    assert (on.page_cache.cache_first_bytes or 0) > 10 * MIB
    assert on.balloon.balloon_bytes_end == 40 * MIB
    assert (on.page_cache.direct_bytes or 0) < (off.page_cache.direct_bytes or 0)


def test_with_memory_above_the_low_watermark_it_changes_nothing() -> None:
    roomy = ("workload.files=2", steps('{at="1s",memory="56MiB"}'))
    off, on = (run_under(*roomy, way) for way in (OFF, ON))
    assert on.rows == off.rows
    assert on.summary.page_cache == off.summary.page_cache
    assert (on.summary.balloon.hinted_fills, on.summary.page_cache.cache_first_bytes) == (8, 0)


def test_the_host_switches_it_on_while_the_guest_runs() -> None:
    """256 pages a batch: 24 MiB are 24 batches, and 16 more are hinted."""
    late = steps('{at="1s",memory="40MiB"}', '{at="2s",memory="24MiB",cache_first=true}')
    summary = run_under(OFF, late).summary
    assert summary.balloon.hinted_fills == 16
    assert (summary.page_cache.cache_first_bytes or 0) > 0


def test_unmapped_page_control_keeps_the_cache_small_without_a_balloon() -> None:
    """16 % of 64 MiB; an eighth of what is beyond 1 % goes at a time."""
    settings = ('balloon={deflate_on_oom=false,manager={name="none"}}', "workload.mapped=0")
    control = 'mechanism={name="balloon_cache_first",unmapped_page_control=true}'
    plain, controlled = (run_under(*settings, way) for way in (OFF, control))
    assert max(row.page_cache_bytes or 0 for row in plain.rows) > 40 * MIB
    assert max(row.page_cache_bytes or 0 for row in controlled.rows) < 16 * MIB
    assert (controlled.summary.page_cache.unmapped_control_bytes or 0) > 0


def test_deflate_on_oom_has_the_same_bit() -> None:
    with pytest.raises(
        ConfigError, match=r"deflate_on_oom: is the feature bit by which balloon_ca"
    ):
        simulate(small("memhog", *FILES, ON, 'balloon.manager.name="band"'))
    assert run_under(ON).summary.balloon.oom_calls == 0  # Without a [balloon], it has none of it.


MACHINES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "guest.vcpus": st.integers(1, 4),
        "workload.mapped": st.sampled_from([0, 0.5, 1]),
        "workload.writes": st.sampled_from([0, 0.3, 1]),
        "workload.duration": st.sampled_from(['"100ms"', '"1s"']),
        "page_cache.zone_reclaim": st.sampled_from(["true", "false"]),
        "page_cache.min_unmapped_ratio": st.sampled_from([0, 0.01, 0.5]),
        "mechanism.reclaim_cache_first": st.sampled_from(["true", "false"]),
        "mechanism.unmapped_page_control": st.sampled_from(["true", "false"]),
        "run.seed": st.integers(0, 2**63 - 1),
    }
)


@given(random=st.random_module(), machine=MACHINES, least=st.integers(0, 40))
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
def test_any_small_machine_is_sound(random: Any, machine: dict[str, Any], least: int) -> None:
    wave = f'{{name="wave",least="{least}MiB",most="64MiB",period="300ms"}}'
    balloon = f'balloon={{deflate_on_oom=false,every="50ms",manager={wave}}}'
    run_under(OFF, balloon, *(f"{key}={value}" for key, value in machine.items()))
