"""Page records written after boot: whoever looks finds what boot would have written."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from emulator.guest.boot import init_deferred
from emulator.guest.mm.check_kernels import check_zone, rebuild_free_lists
from emulator.guest.mm.deferred_kernels import SECTION_PAGES, first_deferred, init_next_section
from emulator.guest.mm.layout import BUDDY, MAX_ORDER, MOVABLE, NO_PAGE, NR_KINDS, UNMOVABLE
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf

LARGEST = 1 << MAX_ORDER
# Three sections and a half, and one that begins within a section and ends within a block.
ZONES = (
    ZoneOf(pages=3 * SECTION_PAGES + SECTION_PAGES // 2 + 5 * LARGEST, reserved=700),
    ZoneOf(pages=2 * SECTION_PAGES + 3 * LARGEST // 2),
)
KERNEL = 1  # The actor that writes them: the guest has one vCPU.


def guests() -> tuple[Guest, Guest]:
    """One that defers, and one that does not."""
    return Guest(*ZONES, deferring=True), Guest(*ZONES)


def deferred_pages(guest: Guest) -> list[int]:
    return [int(pages) for pages in guest.mm.zones["deferred_pages"]]


def finish(guest: Guest) -> None:
    for _ in init_deferred(guest.mm, KERNEL):
        pass
    assert deferred_pages(guest) == [0, 0]


def assert_sound(guest: Guest) -> None:
    counts = np.zeros(NR_KINDS, np.int64)
    for z in range(len(ZONES)):
        assert check_zone(guest.mm, z, counts) == (0, 0)


def assert_same(one: Guest, other: Guest) -> None:
    assert_sound(one)
    for name in ("kind", "order", "owner", "mark", "stamp"):  # Links of blocks in use mean nothing.
        np.testing.assert_array_equal(one.mm.pages[name], other.mm.pages[name])
    for z in range(len(ZONES)):
        assert one.free_lists(z) == other.free_lists(z)
    for name in ("free_pages", "nr_free", "isolated_pages", "reported_pages"):
        np.testing.assert_array_equal(one.mm.zones[name], other.mm.zones[name])


def test_boot_leaves_all_but_the_first_section_of_a_zone() -> None:
    guest, whole = guests()
    first, second = ZONES
    assert deferred_pages(guest) == [
        first.pages // LARGEST * LARGEST - SECTION_PAGES,
        (first.pages + second.pages) // LARGEST * LARGEST - 4 * SECTION_PAGES,
    ]
    assert deferred_pages(whole) == [0, 0]
    np.testing.assert_array_equal(guest.mm.zones["free_pages"], whole.mm.zones["free_pages"])
    np.testing.assert_array_equal(guest.mm.zones["nr_free"], whole.mm.zones["nr_free"])
    written = np.flatnonzero(guest.mm.pages["kind"][: first.pages // LARGEST * LARGEST])
    assert written.max() < SECTION_PAGES


def test_in_the_end_all_is_as_if_boot_had_written_it() -> None:
    guest, whole = guests()
    finish(guest)
    assert_same(guest, whole)
    assert not init_next_section(guest.mm, 0, KERNEL)


@pytest.mark.parametrize("sections", [0, 1, 3])
def test_every_block_can_be_taken_at_once_and_in_the_same_order(sections: int) -> None:
    guest, whole = guests()
    for _ in islice(init_deferred(guest.mm, KERNEL), sections):
        pass
    for each in (guest, whole):
        each.mm.zones["watermark_min"] = each.mm.zones["watermark_low"] = 0
        each.mm.zones["lowmem_reserve"] = 0
    blocks = int(whole.mm.zones["nr_free"][:, MAX_ORDER].sum())
    taken = [int(alloc(guest.mm, 0, MAX_ORDER, MOVABLE)) for _ in range(2000)]
    assert taken == [int(alloc(whole.mm, 0, MAX_ORDER, MOVABLE)) for _ in range(2000)]
    assert taken.index(NO_PAGE) == blocks
    assert deferred_pages(guest) == [0, 0]
    assert_same(guest, whole)


def requests() -> Iterator[tuple[int, int]]:
    """Orders and types that split and steal blocks."""
    for index in range(900):
        yield (index * 7) % (MAX_ORDER + 1), UNMOVABLE if index % 3 == 0 else MOVABLE


@pytest.mark.parametrize("before", [0, 1, 450, 900])
def test_blocks_taken_and_freed_before_it_ends_make_no_difference(before: int) -> None:
    guest, whole = guests()
    held: list[tuple[int, int]] = []
    for index, (order, migratetype) in enumerate(requests()):
        if index == before:
            finish(guest)
        pfn = int(alloc(guest.mm, 0, order, migratetype))
        assert pfn == int(alloc(whole.mm, 0, order, migratetype))
        held.append((pfn, order))
        if index % 2:
            pfn, order = held.pop(index % len(held))
            for each in (guest, whole):
                free(each.mm, 0, pfn, order)
    finish(guest)
    assert_same(guest, whole)


def test_lists_are_rebuilt_with_what_is_deferred() -> None:
    """A vCPU died with the lock; it may have written part of a section."""
    guest, whole = guests()
    for each in (guest, whole):
        assert int(alloc(each.mm, 0, MAX_ORDER, MOVABLE)) != NO_PAGE
    first = first_deferred(guest.mm, 1)
    guest.mm.pages[first]["order"], guest.mm.pages[first]["kind"] = MAX_ORDER, BUDDY
    for z in range(len(ZONES)):
        assert rebuild_free_lists(guest.mm, z) == rebuild_free_lists(whole.mm, z) == 0
    assert deferred_pages(guest) == [0, 0]
    assert_same(guest, whole)


def test_a_small_guest_defers_nothing() -> None:
    guest = Guest(ZoneOf(pages=8 * LARGEST), deferring=True)
    assert deferred_pages(guest) == [0]
    assert_sound_alone(guest)


def assert_sound_alone(guest: Guest) -> None:
    assert check_zone(guest.mm, 0, np.zeros(NR_KINDS, np.int64)) == (0, 0)
