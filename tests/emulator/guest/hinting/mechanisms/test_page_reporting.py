"""Free page reporting, pass by pass (reference: mm/page_reporting.c of Linux 6.6)."""

from typing import Any

import numpy as np
import pytest

from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.page_reporting import (
    ACTIVE,
    IDLE,
    REQUESTED,
    PageReporting,
    PageReportingCycle,
)
from emulator.guest.mm.layout import BUDDY, ISOLATED, MAX_ORDER, MOVABLE, RECLAIMABLE, UNMOVABLE
from tests.support.allocator_kernels import alloc, free, give, report, take
from tests.support.guest import Guest, ZoneOf

SECOND = 1_000_000_000


class Machine:
    """A guest and its cycle; whoever reports here acknowledges at once.

    Watermarks that a test does not give are so low that they never matter.
    """

    def __init__(self, *zones: ZoneOf, **parameters: Any) -> None:
        mechanism = PageReporting(**{"order": 4, "capacity": 2, **parameters})
        self.guest = Guest(*zones, cpus=1, pageblock_order=4, mechanism=mechanism)
        self.mm = self.guest.mm
        for name in ("watermark_min", "watermark_low"):
            marks = self.mm.zones[name]
            marks[marks == 0] = -(10**6)
        self.control = self.mm.hooks.control[0]
        self.cycle: PageReportingCycle = mechanism.start(self.mm, 1)

    def full(self, order: int = 4) -> list[int]:
        """Take all of zone 0 in blocks of that order; every second, so that none can merge."""
        return sorted(self.guest.fill(order))[::2]

    def free(self, *pfns: int, order: int = 4, at_s: float = 0.0, kind: int = MOVABLE) -> None:
        for pfn in pfns:
            give(self.mm, 0, pfn, order, kind, 0, round(at_s * SECOND))

    def start(self, now_s: float = 2.0) -> Wait | Report:
        """The first pass begins; without it the cycle waits for 2 s after it was registered."""
        assert self.cycle.step(now_s - 2) == Wait(now_s)
        return self.cycle.step(now_s)

    def finish(self, decision: Wait | Report, now_s: float = 2.0) -> tuple[list[list[int]], Wait]:
        """The page frames of each report until the pass is over."""
        reports = []
        while isinstance(decision, Report):
            reports.append(decision.batch["pfn"].tolist())
            self.cycle.drain(True, now_s)
            decision = self.cycle.step(now_s)
        return reports, decision

    def run(self, now_s: float = 2.0) -> tuple[list[list[int]], Wait]:
        return self.finish(self.start(now_s), now_s)


@pytest.fixture
def machine() -> Machine:
    """Eighty blocks of 16 pages, all in use."""
    return Machine(ZoneOf(pages=1280))


# --- When.


def test_the_first_pass_is_due_a_delay_after_registering_and_needs_no_free(
    machine: Machine,
) -> None:
    assert machine.control["state"] == REQUESTED
    assert machine.cycle.step(5.0) == Wait(7.0)
    assert machine.cycle.step(6.9) == Wait(7.0)
    first = machine.cycle.step(7.0)
    assert isinstance(first, Report)  # All is free, and nobody had freed anything.
    assert machine.control["state"] == ACTIVE


def test_a_pass_without_anything_to_report_ends_idle(machine: Machine) -> None:
    machine.full()
    assert machine.run() == ([], Wait(None))
    assert machine.control["state"] == IDLE


@pytest.fixture
def idle(machine: Machine) -> Machine:
    """All in use, the first pass over."""
    machine.full()
    assert machine.run() == ([], Wait(None))
    return machine


def test_a_free_of_that_order_requests_a_pass_a_delay_after_it(idle: Machine) -> None:
    idle.free(32, at_s=10.5)
    assert idle.control["state"] == REQUESTED
    assert idle.mm.kernel[0]["doorbell"] == 1
    assert idle.cycle.step(10.6) == Wait(12.5)
    assert idle.cycle.step(12.4) == Wait(12.5)
    assert idle.finish(idle.cycle.step(12.5), 12.5) == ([[32]], Wait(None))


def test_later_frees_neither_delay_the_pass_nor_ring_again(idle: Machine) -> None:
    idle.free(32, at_s=10.5)
    idle.mm.kernel[0]["doorbell"] = 0
    idle.free(64, at_s=11.5)
    assert idle.mm.kernel[0]["doorbell"] == 0
    assert idle.cycle.step(11.6) == Wait(12.5)


def test_a_free_below_that_order_requests_nothing_until_it_merges(idle: Machine) -> None:
    for pfn in range(15):
        idle.free(pfn, order=0, at_s=10)
    assert idle.control["state"] == IDLE
    assert idle.mm.kernel[0]["doorbell"] == 0
    idle.free(15, order=0, at_s=11)
    assert idle.control["state"] == REQUESTED
    assert idle.cycle.step(11.1) == Wait(13.0)


def test_a_free_during_a_pass_requests_another_after_its_end(machine: Machine) -> None:
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
    machine = Machine(ZoneOf(pages=64), delay_s=0.25)
    assert machine.cycle.step(1.0) == Wait(1.25)


# --- What, and in which order.


def test_blocks_are_gathered_from_the_head_and_put_back_in_reverse(machine: Machine) -> None:
    a, b, c = machine.full()[:3]
    machine.free(c, b, a)
    assert machine.guest.free_list(4, MOVABLE) == [a, b, c]
    reports, wait = machine.run()
    # The batch is filled from its end; the last, not full, is sent when the zone is over.
    assert reports == [[b, a], [c]]
    assert machine.guest.free_list(4, MOVABLE) == [b, a, c]
    assert machine.guest.reported() == {a, b, c}
    assert wait == Wait(None)


def test_blocks_are_isolated_while_they_are_reported(machine: Machine) -> None:
    a, b, c = machine.full()[:3]
    machine.free(c, b, a)
    machine.start()
    assert machine.guest.counts()[ISOLATED] == 32
    assert machine.guest.free_list(4, MOVABLE) == [c]
    assert machine.mm.zones[0]["free_pages"] == 16
    machine.cycle.drain(True, 2.0)
    assert machine.guest.counts()[ISOLATED] == 0


def test_what_is_reported_already_is_skipped(machine: Machine) -> None:
    a, b, c, d = machine.full()[:4]
    machine.free(d, c, b, a)
    report(machine.mm, 0, b)
    report(machine.mm, 0, d)
    assert machine.run()[0] == [[c, a]]
    assert machine.guest.free_list(4, MOVABLE) == [b, d, c, a]


def test_a_full_batch_makes_the_first_block_that_waits_the_head(machine: Machine) -> None:
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
    machine = Machine(ZoneOf(pages=2048), capacity=4)
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
    machine = Machine(ZoneOf(pages=64, name="DMA"), ZoneOf(pages=64), capacity=8)
    decision = machine.start()
    assert isinstance(decision, Report)
    assert decision.batch.tolist() == [(0, 6, 0)]
    machine.cycle.drain(True, 2.0)
    decision = machine.cycle.step(2.0)
    assert isinstance(decision, Report)
    assert decision.batch.tolist() == [(64, 6, 1)]


def test_what_becomes_movable_comes_back_to_that_list() -> None:
    machine = Machine(ZoneOf(pages=256))
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
    machine = Machine(ZoneOf(pages=4096))
    machine.free(*machine.full()[:blocks])
    sent, wait = machine.run()
    assert len(sent) == batches
    left = blocks > 2 * batches
    assert wait == (Wait(4.0) if left else Wait(None))
    assert machine.control["state"] == (REQUESTED if left else IDLE)


def test_a_pass_that_ran_out_of_budget_leaves_the_rest_at_the_head(machine: Machine) -> None:
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    assert machine.run()[0] == [[blocks[1], blocks[0]], [blocks[3], blocks[2]]]
    rest = machine.guest.free_list(4, MOVABLE)
    assert rest == [*blocks[4:], blocks[1], blocks[0], blocks[3], blocks[2]]
    assert take(machine.mm, 0, 4, MOVABLE, 0) == blocks[4]


def test_the_rest_is_rotated_before_what_was_reported_earlier(machine: Machine) -> None:
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    for pfn in blocks[:3]:
        report(machine.mm, 0, pfn)
    reports = machine.run()[0]
    assert reports == [[blocks[4], blocks[3]], [blocks[6], blocks[5]]]
    assert machine.guest.free_list(4, MOVABLE)[:3] == blocks[7:]


def test_the_budget_counts_the_blocks_of_all_types(machine: Machine) -> None:
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


# --- Watermarks.


@pytest.mark.parametrize(
    ("low", "boost", "passes"), [(127, 0, True), (128, 0, False), (100, 27, True), (100, 28, False)]
)
def test_a_zone_with_less_than_a_batch_above_low_is_skipped_and_forgotten(
    low: int, boost: int, passes: bool
) -> None:
    machine = Machine(ZoneOf(pages=1280, watermark_low=low))
    machine.mm.zones[0]["watermark_boost"] = boost
    machine.free(*machine.full()[:10])  # 160 pages, against low + 2 << 4.
    assert bool(machine.run()[0]) == passes
    if not passes:
        assert machine.control["state"] == IDLE


def test_other_zones_are_not_skipped_with_it() -> None:
    machine = Machine(ZoneOf(pages=64, name="DMA", watermark_low=63), ZoneOf(pages=64))
    assert machine.run() == ([[64]], Wait(None))


def test_what_was_gathered_before_the_min_watermark_is_sent(machine: Machine) -> None:
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    # Of 160 pages, a block may go while more than min + 16 are left: twice, and no more.
    machine.mm.zones[0]["watermark_min"] = 160 - 2 * 16 - 1
    decision = machine.start()
    assert isinstance(decision, Report)
    assert decision.batch["pfn"].tolist() == [blocks[1], blocks[0]]
    machine.mm.zones[0]["watermark_min"] = 160
    reports, wait = machine.finish(decision)
    assert reports == [[blocks[1], blocks[0]]]
    assert machine.guest.free_list(4, MOVABLE)[0] == blocks[2]
    assert wait == Wait(None)  # And nothing asks for the rest.


def test_a_batch_cut_short_by_the_watermark_is_the_zone_s_last() -> None:
    machine = Machine(ZoneOf(pages=1280), capacity=4)
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    machine.mm.zones[0]["watermark_min"] = 160 - 3 * 16
    assert machine.run()[0] == [[blocks[1], blocks[0]]]
    assert machine.guest.free_list(4, MOVABLE)[0] == blocks[2]


# --- Merging, and errors.


def test_a_block_that_merges_when_put_back_is_not_marked_and_sent_again(machine: Machine) -> None:
    full = sorted(machine.guest.fill(4))
    machine.free(full[0])
    decision = machine.start()
    machine.free(full[1], at_s=2.0)
    assert machine.guest.free_list(4, MOVABLE) == [full[1]]
    reports, _ = machine.finish(decision)
    # At order 5, in the same pass: orders ascend.
    assert reports == [[full[0]]]
    assert machine.guest.free_lists() == {(5, MOVABLE): [full[0]]}
    assert machine.guest.reported() == set()


def test_a_larger_block_made_in_a_pass_is_sent_in_that_pass() -> None:
    machine = Machine(ZoneOf(pages=1280), capacity=2)
    full = sorted(machine.guest.fill(4))
    machine.free(full[8], full[4], full[0])
    decision = machine.start()
    assert isinstance(decision, Report)
    assert decision.batch["pfn"].tolist() == [full[4], full[0]]
    machine.free(full[1], at_s=2.0)
    reports, _ = machine.finish(decision)
    assert reports == [[full[4], full[0]], [full[0], full[8]]]
    assert machine.guest.reported() == {full[0], full[4], full[8]}
    assert machine.mm.pages[full[0]]["order"] == 5


def test_a_reported_block_that_merges_later_in_the_same_drain_loses_its_mark() -> None:
    machine = Machine(ZoneOf(pages=64), capacity=4, order=4)
    full = sorted(machine.guest.fill(4))
    machine.free(full[0])
    machine.free(full[1], kind=MOVABLE)  # Merged: order 5.
    assert machine.run()[0] == [[full[0]]]
    assert machine.guest.reported() == {full[0]}
    machine.free(full[2], full[3], at_s=3)
    assert machine.guest.free_lists() == {(6, MOVABLE): [full[0]]}
    assert machine.guest.reported() == set()


def test_an_error_puts_all_back_unmarked_and_ends_the_pass() -> None:
    machine = Machine(ZoneOf(pages=1280, name="DMA"), ZoneOf(pages=64))
    blocks = machine.full()[:6]
    machine.free(*reversed(blocks))
    machine.start()
    machine.cycle.drain(False, 2.5)
    assert machine.guest.counts()[BUDDY] == 6 * 16 + 64
    assert machine.guest.free_list(4, MOVABLE) == [*blocks[2:], blocks[1], blocks[0]]
    assert machine.guest.reported() == set()
    assert machine.control["state"] == IDLE
    assert machine.cycle.step(100.0) == Wait(None)


def test_a_request_during_a_pass_that_failed_is_kept(machine: Machine) -> None:
    blocks = machine.full()
    machine.free(*blocks[:6])
    machine.start()
    machine.free(blocks[20], at_s=2.2)
    machine.cycle.drain(False, 2.5)
    assert machine.cycle.step(2.5) == Wait(4.5)
    reports, _ = machine.finish(machine.cycle.step(4.5), 4.5)
    assert sum(map(len, reports)) == 4  # A whole pass, from the first zone.


def test_an_allocation_gets_what_is_not_in_flight(machine: Machine) -> None:
    a, b, c = machine.full()[:3]
    machine.free(c, b, a)
    machine.start()
    assert alloc(machine.mm, 0, 4, MOVABLE) == c
    machine.cycle.drain(True, 2.0)
    assert alloc(machine.mm, 0, 4, MOVABLE) == b
    free(machine.mm, 0, b, 4)
    assert machine.guest.reported() == {a}  # Allocated and freed: new.


# --- Parameters.


@pytest.mark.parametrize(
    "parameters",
    [
        {"order": -1},
        {"order": MAX_ORDER + 1},
        {"delay_s": -1},
        {"delay_s": 1e6},
        {"capacity": 0},
        {"capacity": 1025},
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters)).removesuffix("_s")):
        PageReporting(**parameters)


def test_without_an_order_it_is_a_pageblock_s() -> None:
    for block in (9, 10):
        guest = Guest(ZoneOf(pages=1024), pageblock_order=block, mechanism=PageReporting())
        PageReporting().start(guest.mm, 1)
        assert guest.mm.hooks.control[0]["order"] == block


def test_reported_pages_are_counted(machine: Machine) -> None:
    machine.run()
    reported = machine.guest.reported()
    pages = machine.mm.pages["order"][np.array(list(reported))]
    assert machine.mm.zones[0]["reported_pages"] == (1 << pages.astype(int)).sum()
    assert machine.guest.counts()[BUDDY] == 1280
