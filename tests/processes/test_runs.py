"""Whole runs in real processes: sound under every load, and over at once if a part of it dies."""

import multiprocessing
import re
import time

import pytest

from emulator.errors import RunFailed
from emulator.summary import SeriesRow
from tests.support.programs import collapses
from tests.support.real_runs import Processes, once, orphaned_segments, real, run_real

pytestmark = pytest.mark.slow

WORKLOADS = {
    "memhog": ('workload={kind="memhog",idle="300ms"}',),
    "page_fault1": ('workload={kind="page_fault1",duration="500ms",size="8MiB"}',),
    "churn": ('workload={kind="churn",duration="500ms",idle="200ms",order_max=10}',),
}
REPORTING = 'mechanism={name="page_reporting",order=3,delay="5ms",capacity=8}'
CHURN = 'workload={kind="churn",duration="20s",order_max=10}'


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8])
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_run_is_sound_with_any_number_of_vcpus(name: str, vcpus: int) -> None:
    summary = run_real(real(name, *WORKLOADS[name], REPORTING, f"guest.vcpus={vcpus}")).summary
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 10_000
    assert summary.vcpus.lost == 0
    assert summary.stranded.in_flight_bytes == 0
    hinting = summary.hinting
    assert (hinting.reports or 0) > 0
    assert 0 < (hinting.returned_bytes or 0) <= (hinting.claimed_bytes or 0)
    assert (hinting.reclaim_latency_ms.max if hinting.reclaim_latency_ms else None) is not None
    assert multiprocessing.active_children() == []
    assert orphaned_segments() == set()


def test_accounted_ram_works_between_processes() -> None:
    settings = ('guest.ram="accounted"', 'guest.memory="1GiB"', "guest.vcpus=2")
    summary = run_real(real("memhog", *WORKLOADS["memhog"], REPORTING, *settings)).summary
    assert summary.oracle.violations == 0
    # Both rounds fill the same part of what is free, which per-CPU lists make a little uneven.
    filled = (summary.oracle.pages_checked or 0) * 4096 // 2
    assert summary.host.resident_bytes_peak == pytest.approx(filled, rel=0.01)


@pytest.mark.parametrize("order", [3, 9])
def test_huge_pages_of_the_system_are_behind_real_ram(order: int) -> None:
    """Split by small reports, given back whole by large ones; several vCPUs ask at once."""
    reporting = f'mechanism={{name="page_reporting",order={order},delay="5ms",capacity=8}}'
    settings = ("host.huge_pages=true", "guest.vcpus=4", reporting)
    summary = run_real(real("churn", *WORKLOADS["churn"], *settings)).summary
    assert summary.oracle.violations == 0
    assert (summary.hinting.returned_bytes or 0) > 0
    assert summary.host.huge_faults is not None
    if collapses():
        assert summary.host.huge_faults > 0
    # What a huge page has besides what was touched is resident as well, until it is given back.
    assert (summary.host.resident_bytes_peak or 0) <= 128 << 20


def test_a_process_waits_for_a_host_that_swaps() -> None:
    """120 MiB on 96: what does not fit goes out while it fills, and comes back for the check."""
    settings = ('guest.ram="accounted"', 'host={memory="96MiB",swap="64MiB"}', "guest.vcpus=1")
    # What is being reported to a slow host cannot be allocated for so long: up to 32 MiB here.
    work = 'workload={kind="memhog",iterations=1,idle="300ms",retry="1ms"}'
    summary = run_real(real("memhog", work, REPORTING, *settings)).summary
    assert summary.oracle.violations == 0
    host = summary.host
    assert (host.swap_in_bytes or 0) > 16 << 20
    assert host.swap_out_bytes == (host.swap_in_bytes or 0) + (host.swap_dropped_bytes or 0)
    assert (host.swap_wait_s or 0) > (host.swap_in_bytes or 0) / 4096 * 105e-6
    assert (host.resident_bytes_peak or 0) <= (96 + 8) << 20  # And a batch.
    assert (host.swapped_bytes_end, host.swap_full) == (0, 0)


@pytest.mark.parametrize("first", ["false", "true"])
def test_a_build_goes_on_while_its_balloon_takes_page_cache(first: str) -> None:
    """Files are read and written by processes while kswapd, write-back and balloon work."""
    settings = (
        'run.launcher="processes"',
        'guest={memory="64MiB",vcpus=4,ram="memfd",thp=false}',
        f'mechanism={{name="balloon_cache_first",reclaim_cache_first={first}}}',
        'balloon={deflate_on_oom=false,statistics="100ms",every="100ms"}',
        'balloon.manager={name="wave",least="40MiB",most="56MiB",period="1s"}',
        'workload={kind="kernbench",jobs=12,parallel=4,process="1MiB",tree="16MiB",'
        'headers="1MiB",included="256KiB",compiler="1MiB",object="256KiB"}',
    )
    summary = run_real(real("kernbench_wave", *settings)).summary
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 10_000
    assert summary.workload["jobs"] == 12
    assert (summary.balloon.inflated_bytes or 0) > 8 << 20
    cache = summary.page_cache
    assert (cache.host_read_bytes or 0) > 8 << 20
    assert (cache.written_bytes or 0) + (cache.dirty_bytes_end or 0) >= 12 * (256 << 10)
    assert multiprocessing.active_children() == []
    assert orphaned_segments() == set()


def test_a_replay_is_paced_by_its_own_times() -> None:
    settings = ('run.launcher="processes"', 'guest.memory="2GiB"', 'workload.idle="0s"')
    summary = run_real(real("replay", *settings, "workload.speed=20")).summary
    assert summary.oracle.violations == 0
    assert summary.workload["events_skipped"] == 0
    assert (summary.wall_s or 0) > summary.workload["span_s"] / 20


def working(processes: Processes, row: SeriesRow) -> bool:
    return (row.operations or 0) > 20_000


def reporting(processes: Processes, row: SeriesRow) -> bool:
    """A report is in flight: its blocks are isolated, and the host stands still."""
    if (row.reports or 0) == 0:
        return False
    processes.stop("host")
    isolated = processes.machine.guest["zones"]["isolated_pages"]
    return bool(int(isolated.sum())) or row.time_s > 10


@pytest.mark.parametrize("name", ["guest kernel", "host"])
def test_without_guest_kernel_or_host_the_run_ends(name: str) -> None:
    killed_s: list[float] = []

    def kill(processes: Processes) -> None:
        processes.kill(name)
        killed_s.append(time.monotonic())

    message = re.escape(f"the {name} was killed by signal 9 (SIGKILL); the run was ended")
    with pytest.raises(RunFailed, match=message):
        run_real(real("churn", CHURN, REPORTING), once(working, kill))
    assert time.monotonic() - killed_s[0] < 5
    assert multiprocessing.active_children() == []
    assert orphaned_segments() == set()


def test_a_host_that_dies_during_a_report_ends_the_run() -> None:
    in_flight: list[int] = []

    def kill(processes: Processes) -> None:
        isolated = processes.machine.guest["zones"]["isolated_pages"]
        in_flight.append(int(isolated.sum()))
        processes.kill("host")

    with pytest.raises(RunFailed, match="the host was killed by signal 9"):
        run_real(real("churn", CHURN, REPORTING), once(reporting, kill))
    assert in_flight[0] > 0
    assert multiprocessing.active_children() == []


def test_a_guest_that_breaks_the_ring_is_told_so() -> None:
    def scribble(processes: Processes) -> None:
        processes.machine.regions["ring"].arrays["queue.reporting"][:] = 0xFF

    with pytest.raises(RunFailed, match=r"the (host|guest kernel) failed: the .* balloon device: "):
        run_real(real("churn", CHURN, REPORTING), once(working, scribble))
    assert multiprocessing.active_children() == []


def test_a_run_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RunFailed, match=r"took longer than run.time_limit, 1.0 s"):
        run_real(real("churn", CHURN, 'run.time_limit="1s"'))
    assert multiprocessing.active_children() == []


def test_a_balloon_gives_back_to_processes_that_are_out_of_memory() -> None:
    """64 MiB: the balloon leaves 8 to two vCPUs that want 95 %; the targets change meanwhile."""
    targets = '[{at="0s",memory="8MiB"},{at="1s",memory="40MiB"}]'
    balloon = f'balloon={{every="20ms",manager={{name="steps",steps={targets}}}}}'
    work = 'workload={kind="memhog",delay="500ms",idle="1s"}'
    run = run_real(real("memhog", work, balloon, REPORTING, 'guest.memory="64MiB"'))
    summary, figures = run.summary, run.summary.balloon
    assert summary.oracle.violations == 0
    # What is given back to one of them, the other may take, or the balloon, which still follows its
    # target: now and then one asks in vain, as in Linux.
    assert summary.vcpus.failed_allocations in (0, 1, 2)
    assert (figures.oom_bytes or 0) > 0
    assert 0 < (figures.oom_wait_s or 0) < 30
    assert figures.targets == 2
    assert (figures.targets_reached or 0) >= 1
    assert figures.guest_statistics is not None
    assert figures.balloon_bytes_end == (figures.inflated_bytes or 0) - (
        figures.deflated_bytes or 0
    )
    assert multiprocessing.active_children() == []
    assert orphaned_segments() == set()


def test_one_host_serves_several_guests() -> None:
    guests = "guests={count=3,apart='400ms'}"
    settings = (*WORKLOADS["memhog"], REPORTING, guests, "balloon={}", "guest.memory='128MiB'")
    summary = run_real(real("memhog", *settings)).summary
    assert summary.oracle.violations == 0
    assert len(summary.guests) == 3
    for index, guest in enumerate(summary.guests):
        assert (guest.hinting.returned_bytes or 0) > 0
        assert (guest.balloon.guest_statistics or 0) > 0
        assert guest.phases[0].start_s >= 0.4 * index
        assert guest.host.cpu_s is None
    assert (summary.host.cpu_s or 0) > 0
    assert multiprocessing.active_children() == []
    assert orphaned_segments() == set()


def test_a_guest_loses_a_vcpu_and_the_others_do_not_notice() -> None:
    settings = (CHURN, REPORTING, "guests.count=2", "workload.duration='2s'")
    run = run_real(
        real("churn", *settings),
        once(lambda _, row: row.time_s > 0.5, lambda processes: processes.kill("guest 1: vCPU 0")),
    )
    assert [guest.vcpus.lost for guest in run.summary.guests] == [0, 1]
    assert run.summary.vcpus.lost == 1
    assert any(event.startswith("guest 1: vCPU 0 was killed") for event in run.events)
