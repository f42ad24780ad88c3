"""Figures of several guests, as one of all."""

from emulator.guests_summary import added, means
from emulator.summary import (
    CostFigures,
    GuestFigures,
    HintingFigures,
    LockHold,
    ReclaimLatency,
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


def test_a_workloads_numbers_are_averaged() -> None:
    assert means(
        [
            {"build_s": 10.0, "jobs": 4, "kind": "c", "none": None},
            {"build_s": 14.0, "jobs": 4, "kind": "c++", "none": 3},
        ]
    ) == {"build_s": 12.0, "jobs": 4, "kind": "c", "none": None}
