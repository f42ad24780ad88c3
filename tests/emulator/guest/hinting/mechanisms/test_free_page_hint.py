"""free_page_hint: blocks held for the host, taken back under pressure, and the race."""

from typing import Any

import pytest

from emulator.config.scenario import load_scenario
from emulator.guest.hinting.mechanisms.free_page_hint import FreePageHint, FreePageHintCycle
from emulator.guest.mm.layout import MAX_ORDER, MOVABLE, NO_PAGE, PAGE_SIZE
from emulator.observer import NullObserver
from emulator.runner import run
from emulator.summary import Summary
from tests.support.allocator_kernels import alloc
from tests.support.guest import Guest, ZoneOf

BLOCK = 1 << MAX_ORDER


class Hinting:
    """A guest of so many blocks of the largest order, and a cycle."""

    def __init__(self, blocks: int = 4, watermark: int = 0, **parameters: Any) -> None:
        mechanism = FreePageHint(**parameters)
        zone = ZoneOf(pages=blocks * BLOCK, watermark_min=0, watermark_low=watermark)
        self.guest = Guest(zone, mechanism=mechanism)
        self.mm = self.guest.mm
        self.cycle = FreePageHintCycle(mechanism, self.mm, actor=1)

    def take_all(self) -> list[int]:
        """Slots of all blocks that can be held."""
        slots = []
        while (block := self.cycle.take()) is not None:
            assert block.length == BLOCK * PAGE_SIZE
            slots.append(block.slot)
        return slots

    def held_pages(self) -> int:
        self.guest.counts()
        return int(self.mm.zones[0]["isolated_pages"])

    def alloc(self) -> int:
        return int(alloc(self.mm, 0, MAX_ORDER, MOVABLE))


def test_it_holds_all_that_is_above_the_low_watermark() -> None:
    hinting = Hinting(blocks=8, watermark=2 * BLOCK)
    assert len(hinting.take_all()) == 5  # A sixth would go down to the mark.
    assert hinting.held_pages() == 5 * BLOCK
    assert hinting.mm.zones[0]["free_pages"] == 3 * BLOCK


def test_done_gives_every_block_back() -> None:
    hinting = Hinting()
    slots = hinting.take_all()
    hinting.cycle.acknowledge(slots[0])
    hinting.cycle.give_all_back()
    assert hinting.held_pages() == 0
    assert hinting.mm.zones[0]["free_pages"] == 4 * BLOCK


def test_an_allocation_that_would_fail_takes_back_what_was_hinted_last() -> None:
    hinting = Hinting()
    slots = hinting.take_all()
    assert len(slots) == 3
    last = int(hinting.mm.hooks.held[slots[-1]]["pfn"])
    free = {hinting.alloc(), hinting.alloc()}
    assert last in free and NO_PAGE not in free
    assert hinting.held_pages() == 2 * BLOCK
    assert hinting.mm.actors[0]["failed_allocations"] == 0


def test_with_wait_for_ack_only_what_the_host_has_handled_is_taken_back() -> None:
    hinting = Hinting(wait_for_ack=True)
    slots = hinting.take_all()
    assert hinting.alloc() != NO_PAGE  # The one that is not held.
    assert hinting.alloc() == NO_PAGE
    assert hinting.cycle.acknowledge(slots[1]) == MAX_ORDER
    assert hinting.alloc() == hinting.mm.hooks.held[slots[1]]["pfn"]
    assert hinting.alloc() == NO_PAGE
    assert hinting.held_pages() == 2 * BLOCK


def test_a_place_is_filled_again_only_when_the_host_has_used_its_buffer() -> None:
    hinting = Hinting(blocks=2)
    (slot,) = hinting.take_all()
    hinting.cycle.give_all_back()
    again = hinting.cycle.take()
    assert again is not None and again.slot != slot
    hinting.cycle.give_all_back()
    hinting.cycle.acknowledge(slot)
    third = hinting.cycle.take()
    assert third is not None and third.slot == slot


def test_an_impossible_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order: 11 is not one of 0 to 10"):
        FreePageHint(order=11)


def migrated(tmp_path: Any, *changes: str) -> Summary:
    small = ["guest.memory=512MiB", "workload.start=200ms", "workload.after=200ms"]
    wants = ["workload.level=0.4", "workload.grow=0.4", "workload.rate=256MiB/s"]
    scenario = load_scenario("migrate", [*small, *wants, "workload.rounds_max=3", *changes])
    summary = run(scenario, output=tmp_path, observer=NullObserver())
    assert summary.workload["completed"] == 1
    assert summary.stranded.in_flight_bytes == 0
    return summary


def test_blocks_taken_back_before_the_host_handled_them_are_lost(tmp_path: Any) -> None:
    safe = migrated(tmp_path)
    assert safe.oracle.violations == 0
    raced = migrated(tmp_path, "mechanism.wait_for_ack=false")
    assert raced.oracle.violations


def test_hints_make_a_migration_shorter(tmp_path: Any) -> None:
    hinted = migrated(tmp_path)
    plain = migrated(tmp_path, "mechanism.name=off")
    assert plain.oracle.violations == 0
    assert plain.hinting.reports == 0
    assert hinted.hinting.reports
    for figure in ("sent_bytes", "migration_s"):
        less, more = hinted.workload[figure], plain.workload[figure]
        assert isinstance(less, int | float) and isinstance(more, int | float)
        assert 0 < less < more
