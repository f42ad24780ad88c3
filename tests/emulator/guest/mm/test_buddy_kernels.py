"""One zone's free lists: freeing, merging, splitting, isolating (Linux 6.6, mm/page_alloc.c)."""

import numpy as np
import pytest

from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    ISOLATED,
    MAX_ORDER,
    MOVABLE,
    NO_PAGE,
    NONE,
    PCP,
    RECLAIMABLE,
    UNMOVABLE,
)
from tests.support.allocator_kernels import (
    above_watermark,
    isolate,
    move,
    put_back,
    report,
    take,
)
from tests.support.guest import Guest, ZoneOf


@pytest.fixture
def full() -> Guest:
    """64 pages, all in use one by one."""
    guest = Guest(ZoneOf(pages=64), pageblock_order=4)
    assert sorted(guest.fill()) == list(range(64))
    return guest


# --- Freeing: position.


def test_the_newest_free_block_is_at_the_head(full: Guest) -> None:
    full.give(0, 8, 4)
    assert full.free_lists() == {(0, MOVABLE): [4, 8, 0]}
    assert full.counts()[BUDDY] == 3


def test_what_is_put_back_goes_to_the_tail(full: Guest) -> None:
    full.give(0, 8, 4, tail=True)
    assert full.free_list(0, MOVABLE) == [0, 8, 4]


def test_a_block_that_is_likely_to_merge_soon_goes_to_the_tail(full: Guest) -> None:
    full.give(2, 3)  # A free block of order 1 at page 2 ...
    full.give(8, 12)
    full.give(0)  # ... so that 0 and 1, once both are free, merge further.
    assert full.free_lists() == {(0, MOVABLE): [12, 8, 0], (1, MOVABLE): [2]}
    full.give(20)
    assert full.free_list(0, MOVABLE) == [20, 12, 8, 0]


def test_the_upper_buddy_is_likely_to_merge_as_well(full: Guest) -> None:
    full.give(8)
    full.give(4, 5)
    full.give(7)  # 6 and 7 would make a block at 6, whose buddy is at 4.
    assert full.free_list(0, MOVABLE) == [8, 7]


def test_a_merge_that_would_come_from_another_order_is_not_likely(full: Guest) -> None:
    full.give(8)
    full.give(4, 6)  # Two of order 0 where a block of order 1 would have to be.
    full.give(0)
    assert full.free_list(0, MOVABLE) == [0, 6, 4, 8]


@pytest.mark.parametrize(("order", "tail"), [(MAX_ORDER - 2, True), (MAX_ORDER - 1, False)])
def test_the_two_largest_orders_never_count_as_likely_to_merge(order: int, tail: bool) -> None:
    guest = Guest(ZoneOf(pages=4096))
    blocks = sorted(guest.fill(order))
    guest.give(blocks[-1], order=order)
    guest.give(blocks[2], blocks[3], order=order)  # The buddy, one order up, is free.
    guest.give(blocks[0], order=order)
    expected = [blocks[-1], blocks[0]] if tail else [blocks[0], blocks[-1]]
    assert guest.free_list(order, MOVABLE) == expected


# --- Freeing: merging.


def test_the_last_page_merges_all_the_way_up() -> None:
    guest = Guest(ZoneOf(pages=2048))
    before = guest.free_lists()
    assert before == {(10, MOVABLE): [0, 1024]}
    guest.fill()
    guest.give(*range(1024))
    assert guest.free_lists() == {(10, MOVABLE): [0]}
    guest.give(*range(2047, 1023, -1))
    assert guest.free_lists() == {(10, MOVABLE): [1024, 0]}
    assert guest.counts()[BUDDY] == 2048
    assert guest.mm.zones[0]["nr_free"].tolist() == [0] * 10 + [2]


def test_the_merged_block_goes_where_its_last_part_belongs(full: Guest) -> None:
    full.give(0, migratetype=UNMOVABLE)
    full.give(1, migratetype=RECLAIMABLE)
    assert full.free_lists() == {(1, RECLAIMABLE): [0]}


def test_buddies_of_different_orders_do_not_merge(full: Guest) -> None:
    full.give(0, 1, 2)
    assert full.free_lists() == {(1, MOVABLE): [0], (0, MOVABLE): [2]}


@pytest.mark.parametrize("kind", [NONE, PCP, ISOLATED, ALLOCATED])
def test_only_a_free_buddy_merges(full: Guest, kind: int) -> None:
    full.mm.pages[1]["kind"] = kind
    full.give(0)
    assert full.free_lists() == {(0, MOVABLE): [0]}


def test_blocks_of_two_zones_do_not_merge() -> None:
    guest = Guest(ZoneOf(pages=16, name="DMA"), ZoneOf(pages=48), pageblock_order=4)
    assert guest.free_lists(0) == {(4, MOVABLE): [0]}
    assert guest.free_lists(1) == {(4, MOVABLE): [16], (5, MOVABLE): [32]}
    guest.counts()


def test_a_merged_block_is_as_young_as_its_youngest_part(full: Guest) -> None:
    full.mm.pages["stamp"][:4] = 5, 9, 7, 6
    full.give(0, 1)
    assert full.mm.pages[0]["stamp"] == 9
    full.give(3, 2)
    assert full.mm.pages[0]["stamp"] == 9
    assert full.free_lists() == {(2, MOVABLE): [0]}


# --- Taking and splitting.


def test_the_upper_halves_go_to_the_heads() -> None:
    guest = Guest(ZoneOf(pages=2048))
    full = guest.fill(4)
    guest.give(full[5], full[20], order=4)
    assert take(guest.mm, 0, 1, MOVABLE, 0) == full[20]
    at = full[20]
    assert guest.free_lists() == {
        (1, MOVABLE): [at + 2],
        (2, MOVABLE): [at + 4],
        (3, MOVABLE): [at + 8],
        (4, MOVABLE): [full[5]],
    }
    assert guest.mm.pages[at]["order"] == 1


def test_split_halves_are_as_young_as_the_whole(full: Guest) -> None:
    full.give(*range(4))
    full.mm.pages["stamp"][:4] = 3, 0, 0, 0
    assert take(full.mm, 0, 0, MOVABLE, 0) == 0
    assert [int(full.mm.pages[pfn]["stamp"]) for pfn in (1, 2)] == [3, 3]


def test_the_head_of_the_smallest_order_that_serves_is_taken(full: Guest) -> None:
    full.give(*range(16, 20))
    full.give(0, 1, 4, 5)
    assert full.free_lists() == {(1, MOVABLE): [4, 0], (2, MOVABLE): [16]}
    assert take(full.mm, 0, 0, MOVABLE, 0) == 4
    assert take(full.mm, 0, 1, MOVABLE, 0) == 0
    assert take(full.mm, 0, 1, MOVABLE, 0) == 16


def test_other_types_are_not_taken_without_fallback(full: Guest) -> None:
    full.give(0, migratetype=UNMOVABLE)
    assert take(full.mm, 0, 0, MOVABLE, 0) == NO_PAGE
    assert take(full.mm, 0, 0, UNMOVABLE, 0) == 0
    assert full.counts()[BUDDY] == 0


# --- Reported: where the mark goes, and where it stays (reference, section 2h).


@pytest.fixture
def marked(full: Guest) -> Guest:
    """One free block of order 2 at page 0, reported."""
    full.give(*range(4))
    report(full.mm, 0, 0)
    assert full.reported() == {0}
    assert full.mm.zones[0]["reported_pages"] == 4
    return full


@pytest.mark.parametrize("order", [2, 0])
def test_taking_a_reported_block_or_splitting_it_clears_the_mark(marked: Guest, order: int) -> None:
    assert take(marked.mm, 0, order, MOVABLE, 0) == 0
    assert marked.reported() == set()
    assert marked.mm.zones[0]["reported_pages"] == 0
    marked.counts()


def test_merging_with_a_reported_buddy_clears_the_mark(marked: Guest) -> None:
    marked.give(*range(4, 8))
    assert marked.free_lists() == {(3, MOVABLE): [0]}
    assert marked.reported() == set()
    assert marked.mm.zones[0]["reported_pages"] == 0


def test_isolating_a_reported_block_clears_the_mark(marked: Guest) -> None:
    marked.give(8, 10, 12)  # Above the watermark.
    assert isolate(marked.mm, 0, 0, 2)
    assert marked.mm.zones[0]["reported_pages"] == 0
    assert put_back(marked.mm, 0, 0, 2) == 2
    assert marked.reported() == set()


def test_moving_to_another_type_keeps_the_mark_and_goes_to_the_tail(marked: Guest) -> None:
    marked.give(*range(8, 12), migratetype=UNMOVABLE)
    move(marked.mm, 0, 0, 2, UNMOVABLE)
    assert marked.free_lists() == {(2, UNMOVABLE): [8, 0]}
    assert marked.reported() == {0}
    assert marked.mm.zones[0]["reported_pages"] == 4


def test_a_block_that_is_freed_again_is_not_reported(marked: Guest) -> None:
    take(marked.mm, 0, 2, MOVABLE, 0)
    marked.give(0, order=2)
    assert marked.reported() == set()


# --- Watermarks.


def test_the_watermark_is_exceeded_by_a_page_at_least(full: Guest) -> None:
    full.give(0, 8, 16, 24)
    assert above_watermark(full.mm, 0, 0, 3)
    assert not above_watermark(full.mm, 0, 0, 4)


def test_what_a_large_request_cannot_use_does_not_count(full: Guest) -> None:
    full.give(0, 1, 8)
    assert above_watermark(full.mm, 0, 1, 1)  # 3 pages, one of them unusable.
    assert not above_watermark(full.mm, 0, 1, 2)


def test_a_large_request_needs_a_block_that_is_large_enough(full: Guest) -> None:
    full.give(*range(0, 64, 2))
    assert above_watermark(full.mm, 0, 0, 0)
    assert not above_watermark(full.mm, 0, 1, 0)
    full.give(1, migratetype=UNMOVABLE)  # Of whatever type.
    assert above_watermark(full.mm, 0, 1, 0)


# --- Isolating and putting back.


@pytest.mark.parametrize(("minimum", "isolated"), [(3, True), (4, False)])
def test_isolation_leaves_the_min_watermark_and_as_much_again(
    full: Guest, minimum: int, isolated: bool
) -> None:
    full.mm.zones[0]["watermark_min"] = minimum
    full.mm.zones[0]["watermark_boost"] = 1000  # Which does not matter here.
    full.give(*range(4), 8, 16, 24, 32)
    before = full.save()
    assert isolate(full.mm, 0, 0, 2) == isolated  # 8 free pages, and min + 4 must be below.
    if isolated:
        assert full.free_lists() == {(0, MOVABLE): [32, 24, 16, 8]}
        assert full.counts()[ISOLATED] == 4
        assert full.mm.zones[0]["free_pages"] == 4
    else:
        assert all(np.array_equal(before[name], full.arrays[name]) for name in before)


@pytest.mark.parametrize(("order", "movable"), [(2, []), (3, [0]), (4, [0]), (5, [0, 1])])
def test_a_pageblock_that_is_half_isolated_becomes_movable(order: int, movable: list[int]) -> None:
    guest = Guest(ZoneOf(pages=64), pageblock_order=4)
    guest.mm.pageblocks[:] = UNMOVABLE
    guest.fill(order)
    guest.give(0, order=order, migratetype=UNMOVABLE)
    guest.give(63 & -(1 << order), order=order)
    guest.mm.zones[0]["watermark_min"] = -100
    assert isolate(guest.mm, 0, 0, order)
    assert np.flatnonzero(guest.mm.pageblocks == MOVABLE).tolist() == movable
    assert put_back(guest.mm, 0, 0, order) == order
    assert guest.free_list(order, MOVABLE if movable else UNMOVABLE)[-1] == 0


def test_a_block_is_put_back_at_the_tail_without_a_word(full: Guest) -> None:
    control = full.mm.hooks.control[0]
    control["order"] = 0
    full.give(0, 8, 16)
    control["state"] = 0
    assert isolate(full.mm, 0, 16, 0)
    assert put_back(full.mm, 0, 16, 0) == 0
    assert full.free_list(0, MOVABLE) == [8, 0, 16]
    assert control["state"] == 0
    full.give(24)
    assert control["state"] == 1


def test_put_back_blocks_merge(full: Guest) -> None:
    full.give(0, 8)
    assert isolate(full.mm, 0, 0, 0)
    full.give(1)
    assert full.free_list(0, MOVABLE) == [1, 8]
    assert put_back(full.mm, 0, 0, 0) == 1
    assert full.free_lists() == {(0, MOVABLE): [8], (1, MOVABLE): [0]}
