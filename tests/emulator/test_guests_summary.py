"""Figures of several guests, as one of all."""

from emulator.guests_summary import added, means
from emulator.measure import mean_over_time
from emulator.summary import (
    CostFigures,
    GuestFigures,
    HintingFigures,
    LockHold,
    PageCacheFigures,
    ReclaimLatency,
    SeriesRow,
    VcpuFigures,
)


def test_counts_are_added_and_ratios_are_not() -> None:
    one = HintingFigures(
        reports=3,
        blocks=5,
        regret=0.5,
        reclaim_latency_ms=ReclaimLatency(p50=1.0, max=9.0),
        mechanism={"skipped": 2},
    )
    other = HintingFigures(
        reports=4,
        regret=0.1,
        reclaim_latency_ms=ReclaimLatency(p50=2.0, max=30.0),
        mechanism={"skipped": 4},
    )
    assert added([one, other]) == HintingFigures(
        reports=7,
        reclaim_latency_ms=ReclaimLatency(max=30.0),
        mechanism={"skipped": 3.0},
    )


def test_words_stay_and_what_one_has_not_measured_is_not_measured() -> None:
    guests = [GuestFigures(memory_bytes=10, vcpus=2, ram="memfd")] * 3
    assert added(guests) == GuestFigures(memory_bytes=30, vcpus=6, ram="memfd")
    costs = [CostFigures(zone_lock_hold_us=LockHold(max=2.0), zone_lock_wait_s=1.0), CostFigures()]
    assert added(costs) == CostFigures()
    assert added([VcpuFigures(lost=1), VcpuFigures(lost=0)]).lost == 1


def test_means_over_the_time_add_up() -> None:
    rows = [SeriesRow(time_s=at_s, page_cache_bytes=it) for at_s, it in ((0, 0), (2, 40), (3, 40))]
    assert mean_over_time(rows, "page_cache_bytes") == round((2 * 20 + 40) / 3)
    assert mean_over_time(rows, "dirty_bytes") is None
    assert mean_over_time(rows[1:2], "page_cache_bytes") == 40
    each = [PageCacheFigures(bytes_mean=27, bytes_peak=40), PageCacheFigures(bytes_mean=3)]
    assert added(each) == PageCacheFigures(bytes_mean=30)


def test_a_workloads_numbers_are_averaged() -> None:
    assert means(
        [
            {"build_s": 10.0, "jobs": 4, "kind": "c", "none": None},
            {"build_s": 14.0, "jobs": 4, "kind": "c++", "none": 3},
        ]
    ) == {"build_s": 12.0, "jobs": 4, "kind": "c", "none": None}
