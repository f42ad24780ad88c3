"""The per-CPU lists (Linux 6.6: rmqueue_pcplist, free_unref_page_commit, free_pcppages_bulk)."""

import pytest

from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    MOVABLE,
    NO_PAGE,
    PCP,
    RECLAIMABLE,
    UNMOVABLE,
)
from emulator.guest.mm.page_alloc_kernels import drain_if_requested, drain_pcps
from tests.support.allocator_kernels import alloc, free, split
from tests.support.guest import Guest, ZoneOf

OTHER_HUGE, MOVABLE_HUGE = 12, 13


def guest_with(
    *, batch: int = 4, high: int = 100, cpus: int = 1, pages: int = 4096, thp: bool = False
) -> Guest:
    """One zone without watermarks; all of it free."""
    guest = Guest(ZoneOf(pages=pages), cpus=cpus, thp=thp)
    guest.set_pcp(batch=batch, high=high)
    return guest


# --- Taking, and filling up.


@pytest.mark.parametrize(
    ("batch", "order", "blocks"),
    [(63, 0, 63), (63, 1, 31), (63, 3, 7), (7, 2, 2), (7, 3, 2), (2, 3, 2), (1, 0, 1), (1, 3, 1)],
)
def test_an_empty_list_is_filled_with_a_batch_of_pages(batch: int, order: int, blocks: int) -> None:
    guest = guest_with(batch=batch)
    assert alloc(guest.mm, 0, order, MOVABLE) == 0
    pindex = 3 * order + MOVABLE
    # In ascending order: each split leaves the next block at its list's head.
    assert guest.pcp_lists() == (
        {pindex: [at << order for at in range(1, blocks)]} if blocks > 1 else {}
    )
    assert guest.pcp()["count"] == blocks - 1 << order
    assert guest.counts()[ALLOCATED] == 1 << order


@pytest.mark.parametrize("migratetype", [UNMOVABLE, MOVABLE, RECLAIMABLE])
def test_each_type_has_its_list(migratetype: int) -> None:
    guest = guest_with()
    pfn = alloc(guest.mm, 0, 0, migratetype)
    assert guest.pcp_lists() == {migratetype: [pfn + 1, pfn + 2, pfn + 3]}


def test_the_newest_page_is_taken_first() -> None:
    guest = guest_with()
    taken = [int(alloc(guest.mm, 0, 0, MOVABLE)) for _ in range(3)]
    assert taken == [0, 1, 2]
    free(guest.mm, 0, 1, 0)
    free(guest.mm, 0, 0, 0)
    assert guest.pcp_lists() == {MOVABLE: [0, 1, 3]}
    assert alloc(guest.mm, 0, 0, MOVABLE) == 0


def test_a_list_of_another_order_is_not_split() -> None:
    guest = guest_with()
    alloc(guest.mm, 0, 1, MOVABLE)
    alloc(guest.mm, 0, 0, MOVABLE)
    assert guest.pcp_lists() == {MOVABLE: [5, 6, 7], 3 + MOVABLE: [2]}


@pytest.mark.parametrize("order", [4, 8, 10])
def test_larger_orders_pass_by_the_lists(order: int) -> None:
    guest = guest_with()
    pfn = int(alloc(guest.mm, 0, order, MOVABLE))
    assert guest.pcp_lists() == {}
    assert guest.counts()[ALLOCATED] == 1 << order
    free(guest.mm, 0, pfn, order)
    assert guest.counts()[BUDDY] == 4096
    assert guest.free_list(10, MOVABLE)[0] == 0


def test_what_is_filled_in_and_never_used_goes_back_to_the_type_asked_for() -> None:
    guest = guest_with()
    guest.fill()
    guest.give(0, 2, 4)
    assert alloc(guest.mm, 0, 0, UNMOVABLE) != NO_PAGE  # Stolen, the pageblock converted not.
    assert guest.mm.pageblocks[0] == MOVABLE
    drain_pcps(guest.mm, 0)
    assert list(guest.free_lists()) == [(0, UNMOVABLE)]


def test_a_page_is_freed_to_the_list_of_its_pageblock_s_type() -> None:
    guest = guest_with(batch=1)
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    guest.mm.pageblocks[0] = RECLAIMABLE
    free(guest.mm, 0, pfn, 0)
    assert guest.pcp_lists() == {RECLAIMABLE: [pfn]}


def test_another_vcpu_s_page_goes_to_the_list_of_who_frees_it() -> None:
    guest = guest_with(batch=1, cpus=2)
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    free(guest.mm, 1, pfn, 0)
    assert guest.pcp_lists(0) == {}
    assert guest.pcp_lists(1) == {MOVABLE: [pfn]}
    assert guest.counts()[PCP] == 1


# --- Huge pages.


def test_huge_pages_have_two_lists_where_there_are_any() -> None:
    guest = guest_with(thp=True, batch=63, high=4000)
    movable, other = (int(alloc(guest.mm, 0, 9, it)) for it in (MOVABLE, UNMOVABLE))
    assert guest.pcp_lists() == {MOVABLE_HUGE: [movable + 512], OTHER_HUGE: [other + 512]}
    assert guest.pcp()["count"] == 1024
    free(guest.mm, 0, movable, 9)
    assert guest.pcp_lists()[MOVABLE_HUGE] == [movable, movable + 512]
    # The pageblock that unmovable memory stole has its type.
    reclaimable = int(alloc(guest.mm, 0, 9, RECLAIMABLE))
    assert reclaimable == other + 512


def test_without_huge_pages_that_order_goes_to_the_zone() -> None:
    guest = guest_with(thp=False)
    free(guest.mm, 0, int(alloc(guest.mm, 0, 9, MOVABLE)), 9)
    assert guest.counts()[PCP] == 0


def test_a_huge_page_spills_at_once_where_the_limit_is_below_one() -> None:
    guest = guest_with(thp=True, batch=63, high=300)
    pfn = int(alloc(guest.mm, 0, 9, MOVABLE))
    free(guest.mm, 0, pfn, 9)
    # 1024 pages are over 300; 63 are wanted, and the oldest block, of 512, covers that.
    assert guest.pcp_lists() == {MOVABLE_HUGE: [pfn]}
    assert guest.mm.zones[0]["free_pages"] == 4096 - 512


# --- Spilling: when, how much, which first.


def test_a_spill_begins_at_the_limit_with_the_oldest() -> None:
    guest = guest_with(batch=4, high=8, pages=64)
    guest.fill()
    for pfn in range(0, 14, 2):
        free(guest.mm, 0, pfn, 0)
    assert guest.counts()[PCP] == 7
    free(guest.mm, 0, 14, 0)
    assert guest.pcp_lists() == {MOVABLE: [14, 12, 10, 8]}
    assert guest.free_list(0, MOVABLE) == [6, 4, 2, 0]


def test_each_spill_without_an_allocation_frees_twice_as_much() -> None:
    guest = guest_with(batch=2, high=20, pages=256)
    guest.fill()
    spilled = []
    for pfn in range(0, 256, 2):
        before = int(guest.pcp()["count"])
        free(guest.mm, 0, pfn, 0)
        after = int(guest.pcp()["count"])
        if after <= before:
            spilled.append(before + 1 - after)
    # 2, 4, 8, 16: up to high - batch, 18, where it stays.
    assert spilled[:6] == [2, 4, 8, 16, 18, 18]
    assert guest.pcp()["free_factor"] == 4


def test_an_allocation_halves_what_the_next_spill_frees() -> None:
    guest = guest_with(batch=2, high=20)
    guest.pcp()["free_factor"] = 7
    for expected in (3, 1, 0, 0):
        alloc(guest.mm, 0, 0, MOVABLE)
        assert guest.pcp()["free_factor"] == expected


def test_while_spilling_a_block_of_a_higher_order_empties_all_lists() -> None:
    guest = guest_with(batch=2, high=20, pages=256)
    guest.fill(1)
    guest.pcp()["free_factor"] = 1
    free(guest.mm, 0, 0, 1)
    assert guest.pcp_lists() == {}
    assert guest.pcp()["count"] == 0
    guest.pcp()["free_factor"] = 0
    free(guest.mm, 0, 4, 1)
    assert guest.pcp_lists() == {4: [4]}


def test_order_0_and_huge_pages_do_not_count_as_higher_orders() -> None:
    guest = guest_with(batch=2, high=2000, thp=True)
    pages, huge = int(alloc(guest.mm, 0, 0, MOVABLE)), int(alloc(guest.mm, 0, 9, MOVABLE))
    guest.pcp()["free_factor"] = 1
    free(guest.mm, 0, pages, 0)
    free(guest.mm, 0, huge, 9)
    assert guest.pcp_lists() == {MOVABLE: [0, 1], MOVABLE_HUGE: [512, 1024]}


def test_a_limit_below_the_batch_frees_one_page() -> None:
    guest = guest_with(batch=8, high=2, pages=64)
    guest.fill()
    for pfn in (0, 2, 4, 6):
        free(guest.mm, 0, pfn, 0)
    assert guest.pcp_lists() == {MOVABLE: [6]}
    assert guest.free_list(0, MOVABLE) == [4, 2, 0]


def test_a_spill_goes_round_the_lists_from_the_one_freed_to() -> None:
    guest = guest_with(batch=5, high=12, pages=256)
    order_0 = guest.fill()[:128]
    guest.give(*range(128, 256))
    assert guest.fill(1)[0] == 128
    guest.mm.pageblocks[:] = UNMOVABLE
    for pfn in (128, 132, 136):  # 6 pages on list 3: order 1, unmovable.
        free(guest.mm, 0, pfn, 1)
    guest.mm.pageblocks[:] = MOVABLE
    for pfn in order_0[:12:2]:  # 6 on list 1; the last of them is over the limit.
        free(guest.mm, 0, pfn, 0)
    # 5 of list 1, the oldest first; then it is over.
    assert guest.pcp_lists() == {1: [10], 3: [136, 132, 128]}
    guest.pcp()["free_factor"] = 0
    guest.mm.pageblocks[:] = RECLAIMABLE
    for pfn in order_0[20:30:2]:  # 5 on list 2.
        free(guest.mm, 0, pfn, 0)
    # All 5 of list 2 and none of the others: the count is met.
    assert guest.pcp_lists() == {1: [10], 3: [136, 132, 128]}
    guest.pcp()["high"] = 8
    guest.pcp()["free_factor"] = 0
    guest.mm.pageblocks[:] = MOVABLE
    free(guest.mm, 0, order_0[30], 0)
    # 5, but 8 - 5 at most: both of list 1, then on to list 3, where a block is of two.
    assert guest.pcp_lists() == {3: [136, 132]}
    guest.counts()


def test_a_spill_goes_on_with_the_next_list_and_not_with_the_one_before() -> None:
    guest = guest_with(batch=5, high=12, pages=256)
    pages = guest.fill()
    for kind, first, count in ((UNMOVABLE, 0, 5), (RECLAIMABLE, 40, 5), (MOVABLE, 80, 2)):
        guest.mm.pageblocks[:] = kind
        for pfn in pages[first : first + 2 * count : 2]:
            free(guest.mm, 0, pfn, 0)
    assert guest.pcp_lists() == {
        UNMOVABLE: [8, 6, 4, 2, 0],
        RECLAIMABLE: [48, 46],  # Both of MOVABLE, then three of these.
    }


def test_the_factor_grows_up_to_the_limit_and_not_beyond() -> None:
    guest = guest_with(batch=2, high=10, pages=256)
    pages = guest.fill()
    factors = []
    for pfn in pages[:128:2]:
        before = int(guest.pcp()["count"])
        free(guest.mm, 0, pfn, 0)
        if guest.pcp()["count"] <= before:
            factors.append(int(guest.pcp()["free_factor"]))
    assert factors[:5] == [1, 2, 2, 2, 2]  # 2 << 2 is high - batch.


def test_draining_begins_with_the_first_list() -> None:
    guest = guest_with(batch=4)
    alloc(guest.mm, 0, 0, UNMOVABLE)
    alloc(guest.mm, 0, 2, MOVABLE)
    drain_pcps(guest.mm, 0)
    assert guest.pcp_lists() == {}
    assert guest.counts()[BUDDY] == 4096 - 5


def test_spilling_tells_the_mechanism() -> None:
    guest = guest_with(batch=4)
    control = guest.mm.hooks.control[0]
    control["order"] = 10
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    free(guest.mm, 0, pfn, 0)
    assert control["state"] == 0
    drain_pcps(guest.mm, 0)
    assert control["state"] == 1
    assert guest.mm.kernel[0]["doorbell"] == 1


# --- Watermarks and zones.


def two_zones(**marks: int) -> Guest:
    guest = Guest(
        ZoneOf(pages=1024, name="DMA", watermark_min=10, watermark_low=20, watermark_high=30),
        ZoneOf(
            pages=1024,
            name="NORMAL",
            **{"watermark_min": 100, "watermark_low": 200, "watermark_high": 300, **marks},
        ),
        cpus=2,
    )
    guest.set_pcp(batch=1, high=1000)
    assert guest.mm.zones["lowmem_reserve"].tolist() == [4, 0]
    return guest


def test_zones_are_used_from_the_highest_down_to_their_low_then_to_their_min_watermarks() -> None:
    guest = two_zones()
    zones = []
    while (pfn := alloc(guest.mm, 0, 0, MOVABLE)) != NO_PAGE:
        zones.append(int(pfn >= 1024))
    # A page more than the watermark stays; in the lower zone, what is reserved for it as well.
    expected = [1] * (1024 - 200) + [0] * (1024 - 24) + [1] * 100 + [0] * 10
    assert zones == expected
    assert guest.mm.zones["free_pages"].tolist() == [14, 100]
    assert guest.mm.actors[0]["failed_allocations"] == 1


def test_who_runs_out_gives_its_own_lists_back_and_asks_the_others() -> None:
    guest = two_zones()
    mine = [int(alloc(guest.mm, 0, 0, MOVABLE)) for _ in range(50)]
    for pfn in mine:
        free(guest.mm, 0, pfn, 0)
    assert guest.counts()[PCP] == 50
    while alloc(guest.mm, 0, 0, UNMOVABLE) != NO_PAGE:
        pass
    assert guest.counts()[PCP] == 0
    assert guest.mm.actors["drain_requested"].tolist() == [0, 1, 0]


def test_a_vcpu_that_is_asked_drains_once() -> None:
    guest = two_zones()
    free(guest.mm, 1, int(alloc(guest.mm, 1, 0, MOVABLE)), 0)
    drain_if_requested(guest.mm, 1)
    assert guest.counts()[PCP] == 1
    guest.mm.actors[1]["drain_requested"] = 1
    drain_if_requested(guest.mm, 1)
    assert guest.counts()[PCP] == 0
    assert guest.mm.actors[1]["drain_requested"] == 0


def test_what_is_on_a_list_is_taken_below_every_watermark() -> None:
    guest = two_zones()
    guest.set_pcp(batch=3, high=1000)
    assert alloc(guest.mm, 0, 0, MOVABLE) != NO_PAGE
    guest.mm.zones["watermark_min"] = guest.mm.zones["watermark_low"] = 5000
    assert [int(alloc(guest.mm, 0, 0, MOVABLE)) for _ in range(3)] == [1025, 1026, NO_PAGE]


def test_the_boost_counts_above_the_low_watermark_only() -> None:
    guest = two_zones()
    guest.mm.zones[1]["watermark_boost"] = 1024 - 200
    assert alloc(guest.mm, 0, 0, MOVABLE) < 1024
    guest.mm.zones[1]["watermark_boost"] = 1024 - 201
    assert alloc(guest.mm, 0, 0, MOVABLE) >= 1024
    assert guest.mm.zones[1]["watermark_boost"] == 0


# --- Splitting what is in use.


def test_a_part_of_a_block_in_use_is_freed_alone() -> None:
    guest = guest_with(batch=1, cpus=2)
    pfn = int(alloc(guest.mm, 1, 4, RECLAIMABLE))
    assert split(guest.mm, pfn + 4, 2)
    pages = guest.mm.pages
    assert [int(pages[pfn + at]["order"]) for at in (0, 4, 8, 12)] == [2, 2, 2, 2]
    assert guest.allocated_pages() == 16
    free(guest.mm, 0, pfn + 4, 2)
    assert guest.pcp_lists(0) == {6 + RECLAIMABLE: [pfn + 4]}
    assert guest.allocated_pages() == 12
    assert {int(pages[pfn + at]["owner"]) for at in (0, 8, 12)} == {1}


def test_a_block_that_stands_for_itself_needs_no_split() -> None:
    guest = guest_with(batch=1)
    pfn = int(alloc(guest.mm, 0, 2, MOVABLE))
    assert split(guest.mm, pfn, 2)
    assert not split(guest.mm, pfn, 3)  # Larger than what is in use.
    assert not split(guest.mm, 512, 0)  # Free.
    assert guest.allocated_pages() == 4
