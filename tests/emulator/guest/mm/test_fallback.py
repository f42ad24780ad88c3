"""Taking blocks of another migratetype: each branch of __rmqueue_fallback (Linux 6.6)."""

import pytest

from emulator.guest.mm.layout import MOVABLE, NO_PAGE, RECLAIMABLE, UNMOVABLE
from tests.support.allocator_kernels import alloc, fall_back, give, report, take
from tests.support.guest import Guest, ZoneOf

WITH_FALLBACK, WHOLE_PAGEBLOCKS = 1, 2


@pytest.fixture
def full() -> Guest:
    """256 pages in sixteen pageblocks of order 4, all in use one by one as unmovable."""
    guest = Guest(ZoneOf(pages=256), pageblock_order=4)
    guest.mm.pageblocks[:] = UNMOVABLE
    guest.give(*guest.fill(4), order=4, migratetype=UNMOVABLE)
    assert len(guest.fill(0, UNMOVABLE)) == 256
    return guest


@pytest.mark.parametrize(
    ("wanted", "first", "second"),
    [
        (UNMOVABLE, RECLAIMABLE, MOVABLE),
        (MOVABLE, RECLAIMABLE, UNMOVABLE),
        (RECLAIMABLE, UNMOVABLE, MOVABLE),
    ],
)
def test_the_order_of_types(full: Guest, wanted: int, first: int, second: int) -> None:
    full.give(0, migratetype=second)
    full.give(32, migratetype=first)
    assert take(full.mm, 0, 0, wanted, WITH_FALLBACK) == 32
    assert take(full.mm, 0, 0, wanted, WITH_FALLBACK) == 0
    assert take(full.mm, 0, 0, wanted, WITH_FALLBACK) == NO_PAGE


def test_an_unmovable_request_steals_from_the_largest_block(full: Guest) -> None:
    full.give(0, 2, migratetype=MOVABLE)
    full.give(*range(32, 36), migratetype=MOVABLE)
    full.give(*range(64, 66), migratetype=RECLAIMABLE)
    assert take(full.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) == 32


def test_the_order_of_a_pageblock_converts_it_whole() -> None:
    guest = Guest(ZoneOf(pages=256), pageblock_order=4)
    guest.fill(5)
    guest.give(32, 96, order=5)
    assert fall_back(guest.mm, 0, 0, UNMOVABLE, False)
    assert guest.free_lists() == {(5, MOVABLE): [32], (5, UNMOVABLE): [96]}
    assert guest.mm.pageblocks.tolist() == [1] * 6 + [0, 0] + [1] * 8
    assert guest.mm.zones[0]["watermark_boost"] == 0


def test_a_stolen_block_goes_to_the_tail_and_stays_reported() -> None:
    guest = Guest(ZoneOf(pages=256), pageblock_order=4)
    guest.fill(4)
    guest.give(32, order=4, migratetype=UNMOVABLE)
    guest.give(96, order=4)
    report(guest.mm, 0, 96)
    assert fall_back(guest.mm, 0, 4, UNMOVABLE, False)
    assert guest.free_lists() == {(4, UNMOVABLE): [32, 96]}
    assert guest.reported() == {96}


# --- Movable requests: those that would split a pageblock take the smallest block.


def test_a_movable_request_takes_the_smallest_block(full: Guest) -> None:
    full.give(0, 1, 32, migratetype=UNMOVABLE)
    assert take(full.mm, 0, 0, MOVABLE, WITH_FALLBACK) == 32
    assert full.free_lists() == {(1, UNMOVABLE): [0]}
    assert full.mm.pageblocks[2] == UNMOVABLE


def test_a_movable_request_steals_from_half_a_pageblock_s_order_on(full: Guest) -> None:
    full.give(*range(4), migratetype=UNMOVABLE)  # Order 2 = 4 // 2.
    full.give(8, 32, migratetype=UNMOVABLE)
    assert take(full.mm, 0, 0, MOVABLE, WITH_FALLBACK) == 8
    # All free pages of that pageblock came along; not enough of it was free to convert it.
    assert full.free_lists() == {(0, UNMOVABLE): [32], (2, MOVABLE): [0]}
    assert full.mm.pageblocks[0] == UNMOVABLE


def test_a_movable_request_of_the_order_found_takes_that_block_alone(full: Guest) -> None:
    full.give(0, 1, 4, migratetype=UNMOVABLE)
    assert take(full.mm, 0, 1, MOVABLE, WITH_FALLBACK) == 0
    assert full.free_lists() == {(0, UNMOVABLE): [4]}


# --- Other requests: the whole pageblock, if half of it is free or alike.


def test_the_whole_pageblock_moves_block_by_block_to_the_tail(full: Guest) -> None:
    full.give(1, 6, 7, 3, 12, migratetype=RECLAIMABLE)
    full.give(40, migratetype=UNMOVABLE)
    assert fall_back(full.mm, 0, 0, UNMOVABLE, False)
    assert full.free_lists() == {(0, UNMOVABLE): [40, 1, 3, 12], (1, UNMOVABLE): [6]}


@pytest.mark.parametrize(("freed", "kind"), [(7, RECLAIMABLE), (8, UNMOVABLE)])
def test_a_pageblock_half_free_is_converted(full: Guest, freed: int, kind: int) -> None:
    full.mm.pageblocks[0] = RECLAIMABLE
    full.give(*range(0, 2 * freed, 2), migratetype=RECLAIMABLE)
    assert take(full.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) != NO_PAGE
    assert full.mm.pageblocks[0] == kind
    assert (0, RECLAIMABLE) not in full.free_lists()  # All were moved in either case.


@pytest.mark.parametrize(("in_use", "kind"), [(3, UNMOVABLE), (4, MOVABLE)])
def test_movable_pages_in_use_count_for_a_movable_request(
    full: Guest, in_use: int, kind: int
) -> None:
    full.give(*range(4), migratetype=UNMOVABLE)
    full.mm.pages["mark"][8 : 8 + in_use] = MOVABLE
    assert fall_back(full.mm, 0, 2, MOVABLE, False)
    assert full.mm.pageblocks[0] == kind


@pytest.mark.parametrize(("movable", "kind"), [(8, UNMOVABLE), (9, MOVABLE)])
def test_other_pages_in_use_count_where_the_pageblock_was_movable(
    full: Guest, movable: int, kind: int
) -> None:
    full.mm.pageblocks[0] = MOVABLE
    full.give(0, migratetype=MOVABLE)
    full.mm.pages["mark"][1 : 1 + movable] = MOVABLE
    assert take(full.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) == 0
    assert full.mm.pageblocks[0] == kind  # 1 free, and 15 - movable alike: half is 8.


def test_nothing_counts_as_alike_between_unmovable_and_reclaimable(full: Guest) -> None:
    full.mm.pageblocks[0] = RECLAIMABLE
    full.give(0, migratetype=RECLAIMABLE)
    assert take(full.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) == 0
    assert full.mm.pageblocks[0] == RECLAIMABLE


def test_a_pageblock_that_crosses_the_zone_s_end_gives_one_block_only() -> None:
    guest = Guest(ZoneOf(pages=40), pageblock_order=4)
    guest.fill()
    guest.give(34, 36, 38, 33)
    assert take(guest.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) == 33
    assert guest.free_lists() == {(0, MOVABLE): [38, 36, 34]}
    assert guest.mm.pageblocks[2] == MOVABLE


def test_a_pageblock_that_crosses_the_zone_s_start_is_walked_from_the_block_found() -> None:
    guest = Guest(ZoneOf(pages=8, name="DMA"), ZoneOf(pages=56), pageblock_order=4)
    blocks = guest.fill(z=1)
    assert min(blocks) == 8
    pages = guest.mm.pages
    for pfn in (8, 12, 14):  # Zone 1's; the head of the list, 12, is where the walk starts.
        pages[pfn]["mark"] = MOVABLE
    for pfn in (8, 14, 12):
        give(guest.mm, 1, pfn, 0, MOVABLE, 0, 0)
    assert fall_back(guest.mm, 1, 0, UNMOVABLE, False)
    assert guest.free_lists(1) == {(0, MOVABLE): [8], (0, UNMOVABLE): [12, 14]}


# --- Without mixing, and the watermark's boost.


def test_without_mixing_only_whole_pageblocks_are_taken(full: Guest) -> None:
    full.give(*range(8), migratetype=MOVABLE)
    assert take(full.mm, 0, 0, UNMOVABLE, WHOLE_PAGEBLOCKS) == NO_PAGE
    full.give(*range(8, 16), migratetype=MOVABLE)
    assert take(full.mm, 0, 0, UNMOVABLE, WHOLE_PAGEBLOCKS) == 0
    assert full.mm.pageblocks[0] == UNMOVABLE


@pytest.mark.parametrize(
    ("pages", "high", "boosts"),
    [
        (64, 30, [16, 32, 45]),  # A pageblock each, up to 150 % of the high watermark ...
        (64, 2, [16, 16, 16]),  # ... but a pageblock at least.
        (64, 0, [0, 0, 0]),  # Not before there are watermarks.
        (63, 30, [0, 0, 0]),  # Not for less than four pageblocks.
    ],
)
def test_each_steal_from_a_pageblock_boosts_the_watermarks(
    pages: int, high: int, boosts: list[int]
) -> None:
    guest = Guest(ZoneOf(pages=pages, watermark_high=high), pageblock_order=4)
    guest.fill()
    found = []
    for pfn in (0, 16, 32):
        guest.give(pfn)
        assert take(guest.mm, 0, 0, UNMOVABLE, WITH_FALLBACK) == pfn
        found.append(int(guest.mm.zones[0]["watermark_boost"]))
    assert found == boosts


def test_a_boost_is_over_with_the_next_allocation() -> None:
    guest = Guest(ZoneOf(pages=256, watermark_high=100), pageblock_order=4)
    guest.fill()
    guest.give(*range(0, 64, 2))
    assert alloc(guest.mm, 0, 0, UNMOVABLE) != NO_PAGE
    assert guest.mm.zones[0]["watermark_boost"] == 16
    assert alloc(guest.mm, 0, 0, MOVABLE) != NO_PAGE
    assert guest.mm.zones[0]["watermark_boost"] == 0


# --- NORMAL before DMA32 (ALLOC_NOFRAGMENT).


def two_zones(lower: str) -> Guest:
    """Four pages free in each zone, all movable, below the order of a pageblock."""
    guest = Guest(ZoneOf(pages=64, name=lower), ZoneOf(pages=64), pageblock_order=4)
    for z in (0, 1):
        guest.fill(z=z)
        for pfn in range(64 * z, 64 * z + 4):
            give(guest.mm, z, pfn, 0, MOVABLE, 0, 0)
    return guest


def test_a_lower_zone_is_preferred_to_mixing_types() -> None:
    guest = two_zones("DMA32")
    give(guest.mm, 0, 32, 0, UNMOVABLE, 0, 0)
    assert alloc(guest.mm, 0, 0, UNMOVABLE) == 32


def test_types_are_mixed_before_an_allocation_fails() -> None:
    guest = two_zones("DMA32")
    assert alloc(guest.mm, 0, 0, UNMOVABLE) == 64  # In the preferred zone after all.
    assert guest.mm.actors[0]["failed_allocations"] == 0


def test_without_dma32_types_are_mixed_at_once() -> None:
    guest = two_zones("DMA")
    give(guest.mm, 0, 32, 0, UNMOVABLE, 0, 0)
    assert alloc(guest.mm, 0, 0, UNMOVABLE) == 64
