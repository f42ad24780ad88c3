"""Free page reporting where memory is short, blocks merge, or the host fails (Linux 6.6)."""

from typing import Any

import numpy as np
import pytest

from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.page_reporting import (
    IDLE,
    PageReporting,
)
from emulator.guest.mm.layout import BUDDY, MAX_ORDER, MOVABLE
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf
from tests.support.reporting import ReportingMachine


@pytest.fixture
def machine() -> ReportingMachine:
    """Eighty blocks of 16 pages, all in use."""
    return ReportingMachine(ZoneOf(pages=1280))


# --- Watermarks.


@pytest.mark.parametrize(
    ("low", "boost", "passes"), [(127, 0, True), (128, 0, False), (100, 27, True), (100, 28, False)]
)
def test_a_zone_with_less_than_a_batch_above_low_is_skipped_and_forgotten(
    low: int, boost: int, passes: bool
) -> None:
    machine = ReportingMachine(ZoneOf(pages=1280, watermark_low=low))
    machine.mm.zones[0]["watermark_boost"] = boost
    machine.free(*machine.full()[:10])  # 160 pages, against low + 2 << 4.
    assert bool(machine.run()[0]) == passes
    if not passes:
        assert machine.control["state"] == IDLE


def test_other_zones_are_not_skipped_with_it() -> None:
    machine = ReportingMachine(ZoneOf(pages=64, name="DMA", watermark_low=63), ZoneOf(pages=64))
    assert machine.run() == ([[64]], Wait(None))


def test_what_was_gathered_before_the_min_watermark_is_sent(machine: ReportingMachine) -> None:
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
    machine = ReportingMachine(ZoneOf(pages=1280), capacity=4)
    blocks = machine.full()[:10]
    machine.free(*reversed(blocks))
    machine.mm.zones[0]["watermark_min"] = 160 - 3 * 16
    assert machine.run()[0] == [[blocks[1], blocks[0]]]
    assert machine.guest.free_list(4, MOVABLE)[0] == blocks[2]


# --- Merging, and errors.


def test_a_block_that_merges_when_put_back_is_not_marked_and_sent_again(
    machine: ReportingMachine,
) -> None:
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
    machine = ReportingMachine(ZoneOf(pages=1280), capacity=2)
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
    machine = ReportingMachine(ZoneOf(pages=64), capacity=4, order=4)
    full = sorted(machine.guest.fill(4))
    machine.free(full[0])
    machine.free(full[1], kind=MOVABLE)  # Merged: order 5.
    assert machine.run()[0] == [[full[0]]]
    assert machine.guest.reported() == {full[0]}
    machine.free(full[2], full[3], at_s=3)
    assert machine.guest.free_lists() == {(6, MOVABLE): [full[0]]}
    assert machine.guest.reported() == set()


def test_an_error_puts_all_back_unmarked_and_ends_the_pass() -> None:
    machine = ReportingMachine(ZoneOf(pages=1280, name="DMA"), ZoneOf(pages=64))
    blocks = machine.full()[:6]
    machine.free(*reversed(blocks))
    machine.start()
    machine.cycle.drain(False, 2.5)
    assert machine.guest.counts()[BUDDY] == 6 * 16 + 64
    assert machine.guest.free_list(4, MOVABLE) == [*blocks[2:], blocks[1], blocks[0]]
    assert machine.guest.reported() == set()
    assert machine.control["state"] == IDLE
    assert machine.cycle.step(100.0) == Wait(None)


def test_a_request_during_a_pass_that_failed_is_kept(machine: ReportingMachine) -> None:
    blocks = machine.full()
    machine.free(*blocks[:6])
    machine.start()
    machine.free(blocks[20], at_s=2.2)
    machine.cycle.drain(False, 2.5)
    assert machine.cycle.step(2.5) == Wait(4.5)
    reports, _ = machine.finish(machine.cycle.step(4.5), 4.5)
    assert sum(map(len, reports)) == 4  # A whole pass, from the first zone.


def test_an_allocation_gets_what_is_not_in_flight(machine: ReportingMachine) -> None:
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


def test_reported_pages_are_counted(machine: ReportingMachine) -> None:
    machine.run()
    reported = machine.guest.reported()
    pages = machine.mm.pages["order"][np.array(list(reported))]
    assert machine.mm.zones[0]["reported_pages"] == (1 << pages.astype(int)).sum()
    assert machine.guest.counts()[BUDDY] == 1280
