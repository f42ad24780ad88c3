"""The walk over all of memory finds what is wrong; the rebuilding of lists leaves nothing wrong."""

from collections.abc import Callable

import numpy as np
import pytest

from emulator.guest.mm.check_kernels import (
    CHECK_MESSAGES,
    check_pcp,
    check_zone,
    rebuild_free_lists,
    rebuild_pcps,
)
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    ISOLATED,
    MAX_ORDER,
    MOVABLE,
    NONE,
    NR_KINDS,
    PCP,
    RESERVED,
    UNMOVABLE,
)
from emulator.guest.mm.owner_kernels import free_owned
from tests.support.allocator_kernels import alloc, free, isolate, put_back, report
from tests.support.guest import Guest, ZoneOf


@pytest.fixture
def guest() -> Guest:
    """Free: 0 alone, 4 to 7; on a per-CPU list: 17 to 19; isolated: 24; the rest in use."""
    guest = Guest(ZoneOf(pages=64), ZoneOf(pages=64, name="MOVABLE"), cpus=2, pageblock_order=4)
    guest.fill()
    guest.give(0, *range(4, 8), 24, *range(16, 20))
    assert guest.free_lists() == {(0, MOVABLE): [24, 0], (2, MOVABLE): [16, 4]}
    assert isolate(guest.mm, 0, 24, 0)
    guest.set_pcp(batch=4, high=100)
    guest.mm.zones[1]["watermark_min"] = guest.mm.zones[1]["watermark_low"] = 10**6
    assert alloc(guest.mm, 0, 0, MOVABLE) == 0
    free(guest.mm, 0, 0, 0)
    assert guest.pcp_lists() == {MOVABLE: [0, 16, 17, 18]}
    report(guest.mm, 0, 4)
    assert guest.counts().tolist() == [0, 5 + 64, 4, 1, 54, 0, 0, 0]
    return guest


def found(guest: Guest) -> set[str]:
    """What the checks of zone 0 and of vCPU 0 say."""
    counts = np.zeros(NR_KINDS, np.int64)
    errors = {check_zone(guest.mm, 0, counts)[0], check_pcp(guest.mm, 0, 0)[0]}
    return {CHECK_MESSAGES[error] for error in errors if error}


def set_page(pfn: int, **fields: int) -> Callable[[Guest], None]:
    def spoil(guest: Guest) -> None:
        for name, value in fields.items():
            guest.mm.pages[pfn][name] = value

    return spoil


def set_zone(**fields: int) -> Callable[[Guest], None]:
    def spoil(guest: Guest) -> None:
        for name, value in fields.items():
            guest.mm.zones[0][name] = value

    return spoil


def drop_from_list(guest: Guest) -> None:
    """Block 4 leaves its list, though its record says that it is free."""
    page = guest.mm.pages[4]
    guest.mm.pages[page["prev"]]["next"] = page["next"]
    guest.mm.pages[page["next"]]["prev"] = page["prev"]
    guest.mm.zones[0]["nr_free"][2] = 0
    guest.mm.zones[0]["free_pages"] = 1


@pytest.mark.parametrize(
    ("message", "spoil"),
    [
        ("a page lies in no block", set_page(30, kind=NONE)),
        ("a block crosses its zone's end or is not aligned", set_page(63, order=1)),
        ("a block crosses its zone's end or is not aligned", set_page(33, order=1)),
        ("a block crosses its zone's end or is not aligned", set_page(0, order=MAX_ORDER + 1)),
        ("a page inside of a block heads one itself", set_page(5, kind=BUDDY)),
        ("a page inside of a block heads one itself", set_page(32, order=1, kind=RESERVED)),
        ("two free buddies are not merged", set_page(18, kind=BUDDY, order=0)),
        (
            "nr_free differs from the blocks in the page array",
            lambda g: g.mm.zones[0]["nr_free"].put(2, 2),
        ),
        ("free_pages differs from the page array", set_zone(free_pages=6)),
        ("isolated_pages differs from the page array", set_zone(isolated_pages=0)),
        ("reported_pages differs from the page array", set_zone(reported_pages=0)),
        ("reported_pages differs from the page array", set_page(4, mark=0)),
        (
            "a list holds a block that is not free, or of another order",
            set_page(19, kind=ALLOCATED),
        ),
        ("a list's links do not match", set_page(19, prev=30)),
        ("a list's links do not match", set_page(17, prev=30)),
        ("a list's links do not match", set_page(128 + MOVABLE, prev=30)),
        ("the lists hold fewer or more blocks than the page array", drop_from_list),
        (
            "a per-CPU list holds a block that is not on it, or of another vCPU",
            set_page(17, owner=1),
        ),
        (
            "a per-CPU list holds a block that is not on it, or of another vCPU",
            set_page(17, kind=ALLOCATED),
        ),
        ("a per-CPU count differs from its lists", lambda g: g.mm.pcps["count"].put(0, 3)),
        ("a per-CPU count differs from its lists", lambda g: g.mm.pcps["count"].put(0, 5)),
        ("a list holds what is no page of its zone", set_page(4, next=100)),
        ("a list holds what is no page of its zone", set_page(17, next=100)),
    ],
)
def test_whatever_is_wrong_is_found(
    guest: Guest, message: str, spoil: Callable[[Guest], None]
) -> None:
    assert found(guest) == set()
    spoil(guest)
    assert message in found(guest)


def test_a_circle_beside_the_list_is_found(guest: Guest) -> None:
    guest.mm.pages[4]["next"] = guest.mm.pages[4]["prev"] = 4
    assert found(guest) == {"a list's links do not match"}


# --- Lists made anew.


def test_lists_made_anew_hold_the_same_blocks(guest: Guest) -> None:
    before, lists = guest.counts(), guest.free_lists()
    guest.mm.zones[0]["nr_free"] = 77
    guest.mm.zones[0]["free_pages"] = guest.mm.zones[0]["isolated_pages"] = -5
    for pfn in (4, 19):
        guest.mm.pages[pfn]["next"] = guest.mm.pages[pfn]["prev"] = 12345
    assert rebuild_free_lists(guest.mm, 0) == 0
    assert guest.counts().tolist() == before.tolist()
    assert guest.free_lists() == lists
    assert guest.reported() == set()
    assert guest.mm.zones[0]["reported_pages"] == 0
    assert put_back(guest.mm, 0, 24, 0) == 0
    guest.counts()


def test_pages_between_two_places_become_free_and_merge_both_ways(guest: Guest) -> None:
    # 18 was on its way from the list to a vCPU: 19, behind it, is free and linked as before.
    guest.mm.pages[18]["kind"] = NONE
    guest.mm.pages["kind"][8:12] = NONE
    rebuild_pcps(guest.mm, 0)
    guest.mm.pages["kind"][[0, 16, 17]] = ALLOCATED
    assert rebuild_free_lists(guest.mm, 0) == 5
    assert sorted(guest.free_lists().items()) == [
        ((1, MOVABLE), [18]),
        ((2, MOVABLE), [4, 8]),
    ]
    guest.counts()


def test_a_block_that_was_being_split_is_whole_again(guest: Guest) -> None:
    # Its owner died when two halves had been given back and its head stood for all of it.
    guest.mm.pages["kind"][[6, 5]] = BUDDY
    guest.mm.pages["order"][[6, 5]] = 1, 0
    assert rebuild_free_lists(guest.mm, 0) == 0
    assert guest.free_list(2, MOVABLE) == [4]
    guest.counts()


def test_a_block_whose_head_was_taken_in_the_split_is_whole_again(guest: Guest) -> None:
    guest.mm.pages["kind"][4] = NONE
    guest.mm.pages["kind"][6] = BUDDY
    guest.mm.pages["order"][6] = 1
    assert rebuild_free_lists(guest.mm, 0) == 2
    assert guest.free_list(2, MOVABLE) == [4]
    guest.counts()


def test_a_whole_zone_between_two_places_becomes_free() -> None:
    guest = Guest(ZoneOf(pages=16, name="DMA"), ZoneOf(pages=4096 + 48), pageblock_order=4)
    lists = guest.free_lists(1)
    guest.mm.pages["kind"][16:4160] = NONE
    assert rebuild_free_lists(guest.mm, 1) == 4096 + 48
    assert guest.free_lists(1) == lists
    guest.counts()


def test_blocks_go_to_the_lists_of_their_pageblocks(guest: Guest) -> None:
    guest.mm.pageblocks[0] = UNMOVABLE
    rebuild_free_lists(guest.mm, 0)
    assert guest.free_lists() == {(2, UNMOVABLE): [4], (0, MOVABLE): [19]}


def test_what_a_vcpu_held_is_freed_and_nothing_else(guest: Guest) -> None:
    guest.mm.pages["owner"][32:64] = 1
    rebuild_pcps(guest.mm, 0)
    in_use = guest.mm.pages["kind"][:64] == ALLOCATED
    assert free_owned(guest.mm, 0, 0, 0) == 64 - 32 - 1 - 5  # But for what was free, and for 24.
    assert guest.counts()[PCP] == 0
    assert guest.counts()[ALLOCATED] == 32
    assert in_use[32:].all()
    assert (guest.mm.pages["kind"][32:64] == ALLOCATED).all()
    assert guest.counts()[ISOLATED] == 1
