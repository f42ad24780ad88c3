"""Free page reporting, pass by pass (reference: mm/page_reporting.c of Linux 6.6)."""

import pytest

from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.page_reporting import (
    ACTIVE,
    IDLE,
    REQUESTED,
    PageReporting,
)
from emulator.guest.mm.layout import ISOLATED, MOVABLE, RECLAIMABLE, UNMOVABLE
from tests.support.allocator_kernels import report, take
from tests.support.guest import Guest, ZoneOf
from tests.support.reporting import ReportingMachine


@pytest.fixture
def machine() -> ReportingMachine:
    """Eighty blocks of 16 pages, all in use."""
    return ReportingMachine(ZoneOf(pages=1280))


# --- When.


def test_the_first_pass_is_due_a_delay_after_registering_and_needs_no_free(
    machine: ReportingMachine,
) -> None:
    assert machine.control["state"] == REQUESTED
    assert machine.cycle.step(5.0) == Wait(7.0)
    assert machine.cycle.step(6.9) == Wait(7.0)
    first = machine.cycle.step(7.0)
    assert isinstance(first, Report)  # All is free, and nobody had freed anything.
    assert machine.control["state"] == ACTIVE


def test_a_pass_without_anything_to_report_ends_idle(machine: ReportingMachine) -> None:
    machine.full()
    assert machine.run() == ([], Wait(None))
    assert machine.control["state"] == IDLE


@pytest.fixture
def idle(machine: ReportingMachine) -> ReportingMachine:
    """All in use, the first pass over."""
    machine.full()
    assert machine.run() == ([], Wait(None))
    return machine


def test_a_free_of_that_order_requests_a_pass_a_delay_after_it(idle: ReportingMachine) -> None:
    idle.free(32, at_s=10.5)
    assert idle.control["state"] == REQUESTED
    assert idle.mm.kernel[0]["doorbell"] == 1
    assert idle.cycle.step(10.6) == Wait(12.5)
    assert idle.cycle.step(12.4) == Wait(12.5)
    assert idle.finish(idle.cycle.step(12.5), 12.5) == ([[32]], Wait(None))


def test_later_frees_neither_delay_the_pass_nor_ring_again(idle: ReportingMachine) -> None:
    idle.free(32, at_s=10.5)
    idle.mm.kernel[0]["doorbell"] = 0
    idle.free(64, at_s=11.5)
    assert idle.mm.kernel[0]["doorbell"] == 0
    assert idle.cycle.step(11.6) == Wait(12.5)


def test_a_free_below_that_order_requests_nothing_until_it_merges(idle: ReportingMachine) -> None:
    for pfn in range(15):
        idle.free(pfn, order=0, at_s=10)
    assert idle.control["state"] == IDLE
    assert idle.mm.kernel[0]["doorbell"] == 0
    idle.free(15, order=0, at_s=11)
    assert idle.control["state"] == REQUESTED
    assert idle.cycle.step(11.1) == Wait(13.0)


def test_a_free_during_a_pass_requests_another_after_its_end(machine: ReportingMachine) -> None:
    blocks = machine.full()
    machine.free(*blocks[:2])
    decision = machine.start()
    machine.mm.kernel[0]["doorbell"] = 0
    machine.free(blocks[8], at_s=2.1)
    assert machine.control["state"] == REQUESTED
    assert machine.mm.kernel[0]["doorbell"] == 0  # The pass looks at its end.
    reports, wait = machine.finish(decision, now_s=3.0)
    assert wait == Wait(5.0)
    assert machine.cycle.step(4.9) == Wait(5.0)
    assert reports == [[blocks[0], blocks[1]]]  # It was the zone's last when it was sent.
    assert machine.finish(machine.cycle.step(5.0), now_s=5.0) == ([[blocks[8]]], Wait(None))
    assert machine.guest.reported() == {blocks[0], blocks[1], blocks[8]}


def test_another_delay() -> None:
    machine = ReportingMachine(ZoneOf(pages=64), delay_s=0.25)
    assert machine.cycle.step(1.0) == Wait(1.25)


# --- What, and in which order.


def test_blocks_are_gathered_from_the_head_and_put_back_in_reverse(
    machine: ReportingMachine,
) -> None:
    a, b, c = machine.full()[:3]
    machine.free(c, b, a)
    assert machine.guest.free_list(4, MOVABLE) == [a, b, c]
    reports, wait = machine.run()
    # The batch is filled from its end; the last, not full, is sent when the zone is over.
    assert reports == [[b, a], [c]]
    assert machine.guest.free_list(4, MOVABLE) == [b, a, c]
    assert machine.guest.reported() == {a, b, c}
    assert wait == Wait(None)


def test_blocks_are_isolated_while_they_are_reported(machine: ReportingMachine) -> None:
    a, b, c = machine.full()[:3]
    machine.free(c, b, a)
    machine.start()
    assert machine.guest.counts()[ISOLATED] == 32
    assert machine.guest.free_list(4, MOVABLE) == [c]
    assert machine.mm.zones[0]["free_pages"] == 16
    machine.cycle.drain(True, 2.0)
    assert machine.guest.counts()[ISOLATED] == 0


def test_what_is_reported_already_is_skipped(machine: ReportingMachine) -> None:
    a, b, c, d = machine.full()[:4]
    machine.free(d, c, b, a)
    report(machine.mm, 0, b)
    report(machine.mm, 0, d)
    assert machine.run()[0] == [[c, a]]
    assert machine.guest.free_list(4, MOVABLE) == [b, d, c, a]


def test_a_full_batch_makes_the_first_block_that_waits_the_head(machine: ReportingMachine) -> None:
    a, b, c, d, e = machine.full()[:5]
    machine.free(e, d, c, b, a)
    report(machine.mm, 0, a)
    decision = machine.start()
    assert isinstance(decision, Report)
    assert decision.batch["pfn"].tolist() == [c, b]
    assert machine.guest.free_list(4, MOVABLE) == [d, e, a]
    machine.cycle.drain(True, 2.0)
    assert machine.guest.free_list(4, MOVABLE) == [d, e, a, c, b]


def test_orders_and_types_ascend_and_a_batch_goes_on_from_list_to_list() -> None:
    machine = ReportingMachine(ZoneOf(pages=2048), capacity=4)
    big = sorted(machine.guest.fill(5))
    machine.free(big[0], order=5, kind=UNMOVABLE)
    machine.free(*range(big[8], big[9], 16), order=4, kind=RECLAIMABLE)
    machine.free(big[4], big[12], kind=MOVABLE)
    machine.free(big[6], kind=UNMOVABLE)
    machine.free(big[20], order=4, kind=RECLAIMABLE)
    reports, _ = machine.run()
    # Order 4: unmovable, movable (the last freed first), reclaimable; then order 5 from the start.
    assert reports == [
        [big[20], big[4], big[12], big[6]],
        [big[8], big[0]],
    ]


def test_zones_follow_each_other_with_batches_of_their_own() -> None:
    machine = ReportingMachine(ZoneOf(pages=64, name="DMA"), ZoneOf(pages=64), capacity=8)
    decision = machine.start()
    assert isinstance(decision, Report)
    assert decision.batch.tolist() == [(0, 6, 0)]
    machine.cycle.drain(True, 2.0)
    decision = machine.cycle.step(2.0)
    assert isinstance(decision, Report)
    assert decision.batch.tolist() == [(64, 6, 1)]


def test_what_becomes_movable_comes_back_to_that_list() -> None:
    machine = ReportingMachine(ZoneOf(pages=256))
    blocks = machine.full()
    machine.mm.pageblocks[:] = UNMOVABLE
    machine.free(blocks[0], kind=UNMOVABLE)
    assert machine.run()[0] == [[blocks[0]]]
    assert machine.guest.free_lists() == {(4, MOVABLE): [blocks[0]]}
    assert machine.mm.pageblocks[0] == MOVABLE


# --- How much.


@pytest.mark.parametrize(
    ("blocks", "batches"),
    [(1, 1), (3, 2), (4, 2), (5, 2), (32, 2), (33, 3), (64, 3), (65, 4)],
)
def test_a_pass_sends_a_sixteenth_of_a_list_and_a_batch_more(blocks: int, batches: int) -> None:
    """With a capacity of 2: ceil(n / 32) + 1 batches, but no more than there are blocks."""
    machine = ReportingMachine(ZoneOf(pages=4096))
    machine.free(*machine.full()[:blocks])
    sent, wait = machine.run()
    assert len(sent) == batches
    left = blocks > 2 * batches
    assert wait == (Wait(4.0) if left else Wait(None))
    assert machine.control["state"] == (REQUESTED if left else IDLE)


def test_a_pass_that_ran_out_of_budget_leaves_the_rest_at_the_head(
    machine: ReportingMachine,
) -> None:
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    assert machine.run()[0] == [[blocks[1], blocks[0]], [blocks[3], blocks[2]]]
    rest = machine.guest.free_list(4, MOVABLE)
    assert rest == [*blocks[4:], blocks[1], blocks[0], blocks[3], blocks[2]]
    assert take(machine.mm, 0, 4, MOVABLE, 0) == blocks[4]


def test_the_rest_is_rotated_before_what_was_reported_earlier(machine: ReportingMachine) -> None:
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    for pfn in blocks[:3]:
        report(machine.mm, 0, pfn)
    reports = machine.run()[0]
    assert reports == [[blocks[4], blocks[3]], [blocks[6], blocks[5]]]
    assert machine.guest.free_list(4, MOVABLE)[:3] == blocks[7:]


def test_the_budget_counts_the_blocks_of_all_types(machine: ReportingMachine) -> None:
    blocks = machine.full()[:40]
    machine.free(*blocks[:8], kind=MOVABLE)
    machine.free(*blocks[8:], kind=UNMOVABLE)
    # 40 blocks: ceil(40 / 32) + 1 = 3 batches of each list; movable ones have become more by then.
    assert [len(it) for it in machine.run()[0]] == [2] * 6


def test_2_gib_come_back_in_eight_passes() -> None:
    """512 free blocks of 4 MiB, budget 1: two requests of 32 blocks every 2 s (the reference)."""
    mechanism = PageReporting(order=10)
    guest = Guest(ZoneOf(pages=512 << 10), pageblock_order=10, mechanism=mechanism)
    cycle = mechanism.start(guest.mm, 1)
    now_s = 2.0
    passes: list[int] = []
    assert cycle.step(0.0) == Wait(2.0)
    while len(passes) < 20:
        sent = 0
        while isinstance(decision := cycle.step(now_s), Report):
            assert len(decision.batch) == 32
            cycle.drain(True, now_s)
            sent += 1
        passes.append(sent)
        if decision == Wait(None):
            break
        assert decision == Wait(now_s + 2)
        now_s += 2
    # The eighth pass sends the last batch with no block left that would ask for more.
    assert passes == [2] * 8
    assert guest.mm.zones[0]["reported_pages"] == 512 << 10
    assert now_s == 16.0
