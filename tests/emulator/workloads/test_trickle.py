"""trickle: the pace of its frees, and what each kind of threshold keeps back."""

import pytest

from emulator.report.answer import answer
from tests.support.runs import Simulated, simulate, small

MIB = 1 << 20
#: 8 s of 4 MiB a second, and 4 s in which nothing happens.
SETTINGS = (
    'workload.rate="4MiB"',
    "workload.fraction=0.5",
    'workload.idle="4s"',
    'run.sample="100ms"',
)


def trickle(mechanism: str, *settings: str) -> Simulated:
    return simulate(small("trickle", f"mechanism={{{mechanism}}}", *SETTINGS, *settings))


def test_it_frees_at_its_rate_all_that_it_filled() -> None:
    run = trickle('name="off"')
    fill, trickled, idle = run.summary.phases
    assert run.summary.workload == {"trickled_bytes": 32 * MIB}
    assert trickled.end_s - trickled.start_s == pytest.approx(8, abs=0.1)
    assert idle.end_s - idle.start_s == pytest.approx(4, abs=0.1)
    free = [(row.time_s, row.guest_free_bytes or 0) for row in run.rows]
    middle = next(size for time_s, size in free if time_s >= fill.end_s + 4)
    # Half of the 32 MiB, but for what the per-CPU lists of two vCPUs hold.
    assert middle == pytest.approx((32 + 16) * MIB, abs=4 * MIB)
    assert run.summary.oracle.pages_checked == 32 * MIB // 4096
    assert run.summary.oracle.violations == 0


def test_a_bitmaps_burst_below_its_threshold_waits_for_ever() -> None:
    """32 MiB are no more than 16 bits of order 9: what is freed after the last pass stays."""
    run = trickle('name="bitmap",threshold=7')
    own = run.summary.hinting.mechanism or {}
    assert run.summary.hinting.returned_bytes
    assert 0 < own["bits_left"] < 7
    assert own["stranded_bytes"] > 0
    all_of_it = trickle('name="bitmap",threshold=1,look_again=true').summary
    assert (all_of_it.hinting.mechanism or {})["stranded_bytes"] == 0


def test_arrays_of_frees_that_merge_never_fill() -> None:
    """Packing turns 1000 neighbours into a few heads of blocks: nothing is ever reported."""
    run = trickle('name="percpu_arrays"').summary
    own = run.hinting.mechanism or {}
    assert (run.hinting.reports, own["ignored_frees"]) == (0, 0)
    assert own["captured_frees"] == 32 * MIB // 4096
    assert own["scans"] > 0
    assert own["stranded_bytes"] > 16 * MIB


def test_the_answer_says_what_was_left_as_the_last_was_freed() -> None:
    run = trickle('name="page_reporting",delay="100ms",capacity=1').summary
    phases = {phase.name: phase for phase in run.phases}
    words = answer(run)
    assert "As the last of 32 MiB was freed, little by little, " in words
    assert (phases["trickle"].resident_bytes_end or 0) < 16 * MIB
    assert "4 s of idling later " in words
