"""The hog that needs its memory suddenly: how long until it has it."""

import pytest

from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError, RunFailed
from emulator.machine_parts import load_parts
from emulator.summary import Summary
from tests.support.runs import simulate, small

CLASSIC = 'mechanism={name="balloon"}'
RETRY = ("workload.retry='10ms'", "workload.iterations=1", "workload.delay='2s'")
STEPS = 'balloon.manager={name="steps",steps=[{at="0s",memory="8MiB"},{at="3s",memory="64MiB"}]}'


def burst(*settings: str) -> Summary:
    """64 MiB, of which the hog wants 95 % at 2 s, and the balloon has all but 8 MiB until 3 s."""
    return simulate(small("memhog", CLASSIC, STEPS, *RETRY, "guest.vcpus=1", *settings)).summary


def test_with_deflate_on_oom_it_has_it_at_once() -> None:
    summary = burst()
    assert summary.vcpus.failed_allocations == 0
    assert 0 < summary.workload["fill_ms"] < 100
    assert summary.workload["filled_bytes"] > 58 << 20


def test_without_it_waits_for_the_manager_and_tries_again() -> None:
    summary = burst("balloon.deflate_on_oom=false")
    assert 1000 < summary.workload["fill_ms"] < 1100
    # Every 10 ms for a second.
    assert summary.vcpus.failed_allocations == pytest.approx(100, abs=3)
    assert summary.workload["filled_bytes"] > 58 << 20
    assert summary.oracle.violations == 0


def test_a_slow_host_makes_it_wait_for_every_megabyte() -> None:
    """Some 50 MiB come back, 1 MiB a message of 10 ms, before the manager comes to help."""
    fast, slow = (burst("guest.ram='accounted'", f"cost.wake='{ms}ms'") for ms in (0, 10))
    calls = slow.balloon.oom_calls or 0
    assert calls > 45
    waited_ms = slow.workload["fill_ms"] - fast.workload["fill_ms"]
    assert waited_ms == pytest.approx(10 * calls, rel=0.1)


def test_memory_that_never_comes_ends_with_the_time_limit() -> None:
    with pytest.raises(RunFailed, match=r"took longer than run.time_limit, 5.0 s"):
        burst(
            "balloon.deflate_on_oom=false",
            'balloon.manager={name="steps",steps=[{at="0s",memory="8MiB"}]}',
            "run.time_limit='5s'",
        )


def test_a_hog_that_does_not_try_again_has_no_such_figure() -> None:
    assert "fill_ms" not in burst("workload.retry='0s'").workload


def test_a_time_before_now_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"workload.retry: '-1s' is not a time"):
        load_parts(load_scenario("memhog", ["workload.retry='-1s'"]))
