"""A vCPU is killed, anywhere: what it held is taken back, and the run goes on without it."""

import multiprocessing
import re

import pytest

from emulator.errors import RunFailed
from emulator.summary import SeriesRow, is_sound
from tests.support.real_runs import Processes, Run, once, real, run_real

pytestmark = pytest.mark.slow

# Long enough to be at work still when a busy machine lets us look.
CHURN = 'workload={kind="churn",duration="2s",idle="0s",order_max=10}'
REPORTING = 'mechanism={name="page_reporting",order=3,delay="5ms",capacity=8}'
REPLAY = (
    'run.launcher="processes"',
    'guest.memory="2GiB"',
    "workload.speed=20",
    'workload.idle="0s"',
)


def worked(processes: Processes, row: SeriesRow) -> bool:
    """The vCPUs are at work."""
    return (row.operations or 0) > 20_000


def assert_recovered(run: Run, lost: list[str]) -> None:
    """The lost vCPUs are named and counted, their pages were taken back; all others were sound."""
    assert run.summary.vcpus.lost == len(lost)
    assert run.summary.oracle.violations == 0
    assert not is_sound(run.summary, [])
    text = "\n".join(run.events)
    for name in lost:
        assert f"{name} was killed by signal 9 (SIGKILL); the run goes on without it" in text
        assert re.search(rf"\d+ pages of {name} were taken back", text)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("vcpus", [2, 4, 8])
def test_a_vcpu_that_dies_at_work_is_buried(vcpus: int) -> None:
    scenario = real("churn", CHURN, REPORTING, f"guest.vcpus={vcpus}")
    run = run_real(scenario, once(worked, lambda processes: processes.kill("vCPU 1")))
    assert_recovered(run, ["vCPU 1"])


@pytest.mark.parametrize("mechanism", ['mechanism={name="off"}', REPORTING])
def test_a_vcpu_that_dies_with_the_zone_lock_is_buried(mechanism: str) -> None:
    scenario = real("churn", CHURN, mechanism, "guest.vcpus=4")
    run = run_real(scenario, once(worked, lambda processes: processes.kill_within_lock(2)))
    assert_recovered(run, ["vCPU 2"])


@pytest.mark.parametrize("writes", [0.0, 1.0])
def test_a_vcpu_that_dies_with_the_page_cache_s_lock_is_buried(writes: float) -> None:
    """What it had read and written stays in the cache, and nothing is dropped unwritten."""
    work = (
        f'workload={{kind="files",files=8,size="16MiB",hot=0.0,mapped=0.0,writes={writes},'
        'anonymous=0.3,duration="1500ms",idle="200ms"}'
    )
    scenario = real("memhog", work, REPORTING, "guest.vcpus=3", 'page_cache.write_back="1GiB/s"')
    kill = once(worked, lambda processes: processes.kill_within_lock(2, "page_cache.control"))
    run = run_real(scenario, kill)
    assert_recovered(run, ["vCPU 2"])
    assert run.summary.page_cache.dirty_bytes_end == 0
    assert run.summary.page_cache.bytes_end == 0


def test_vcpus_that_die_together_are_buried_whoever_has_the_lock() -> None:
    def kill_three(processes: Processes) -> None:
        # The supervisor, in whose name this happens, sees them all dead at once.
        processes.kill_within_lock(1)
        processes.kill("vCPU 0")
        processes.kill("vCPU 3")

    run = run_real(real("churn", CHURN, REPORTING, "guest.vcpus=4"), once(worked, kill_three))
    assert_recovered(run, ["vCPU 0", "vCPU 1", "vCPU 3"])


def test_a_vcpu_that_dies_at_a_barrier_holds_up_nobody() -> None:
    """memhog's vCPUs wait for each other; the one that dies has memory in use."""
    hog = ('workload.idle="300ms"', 'workload.rate="256MiB/s"')
    scenario = real("memhog", *hog, "guest.vcpus=2")
    run = run_real(scenario, once(worked, lambda processes: processes.kill("vCPU 0")))
    assert_recovered(run, ["vCPU 0"])


def test_a_vcpu_that_dies_in_a_replay_ends_nobody_elses() -> None:
    scenario = real("replay", *REPLAY)
    run = run_real(scenario, once(worked, lambda processes: processes.kill("vCPU 1")))
    assert_recovered(run, ["vCPU 1"])


def test_when_every_vcpu_has_died_the_run_ends() -> None:
    def kill_all(processes: Processes) -> None:
        for cpu in range(2):
            processes.kill(f"vCPU {cpu}")

    with pytest.raises(RunFailed, match="every vCPU has died; the run was ended"):
        run_real(real("churn", CHURN), once(worked, kill_all))
    assert multiprocessing.active_children() == []
