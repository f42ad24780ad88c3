"""Each hook is called where it is said to be, with what it is said to get."""

from typing import NamedTuple

import pytest

from emulator.guest.mm.check_kernels import rebuild_free_lists
from emulator.guest.mm.hook_kernels import HOOKS, with_hooks
from emulator.guest.mm.layout import MARK_REPORTED, MOVABLE, NO_PAGE, UNMOVABLE
from tests.support.allocator_kernels import alloc, free, isolate, move, put_back, report, take
from tests.support.guest import Guest, ZoneOf
from tests.support.watching_kernels import (
    BEFORE_FAILING,
    BLOCK_FREED,
    BLOCK_SPLIT,
    BLOCK_UNLINKED,
    LISTS_FORGOTTEN,
    MAY_MERGE,
    MAY_TAKE,
    PAGE_FREED,
    TAIL_OF_LIST,
    Watching,
)


@pytest.fixture
def guest() -> Guest:
    """64 pages, all in use one by one."""
    guest = Guest(ZoneOf(pages=64), cpus=2, pageblock_order=4, mechanism=Watching())
    guest.fill()
    forget(guest)
    return guest


def forget(guest: Guest) -> None:
    guest.mm.hooks.calls[:] = 0


def calls(guest: Guest, hook: int) -> int:
    return int(guest.mm.hooks.calls[hook]["count"])


def last(guest: Guest, hook: int) -> tuple[int, ...]:
    return tuple(int(guest.mm.hooks.calls[hook][it]) for it in "abcd")


def test_page_freed_before_the_page_is_on_any_list(guest: Guest) -> None:
    guest.set_pcp(batch=4, high=100)
    free(guest.mm, 1, 9, 0)
    assert (calls(guest, PAGE_FREED), last(guest, PAGE_FREED)) == (1, (1, 9, 0, 0))
    assert calls(guest, BLOCK_FREED) == 0  # It is on a per-CPU list.


def test_block_freed_after_merging_with_the_final_order(guest: Guest) -> None:
    guest.give(4, 5, 7)
    forget(guest)
    guest.give(6)
    assert (calls(guest, BLOCK_FREED), last(guest, BLOCK_FREED)) == (1, (0, 4, 2, 0))
    guest.give(20, tail=True)
    assert calls(guest, BLOCK_FREED) == 1  # Silently: put back.


def test_block_unlinked_for_each_block_that_leaves_its_list(guest: Guest) -> None:
    guest.give(4, 5, 7, 16, 32)
    forget(guest)
    guest.give(6)  # Merges with 7, and then with 4.
    assert (calls(guest, BLOCK_UNLINKED), last(guest, BLOCK_UNLINKED)) == (2, (0, 4, 1, 0))
    move(guest.mm, 0, 4, 2, UNMOVABLE)
    assert (calls(guest, BLOCK_UNLINKED), last(guest, BLOCK_UNLINKED)) == (3, (0, 4, 2, 0))
    assert isolate(guest.mm, 0, 16, 0)
    assert (calls(guest, BLOCK_UNLINKED), last(guest, BLOCK_UNLINKED)) == (4, (0, 16, 0, 0))
    assert take(guest.mm, 0, 0, MOVABLE, 0) == 32
    assert (calls(guest, BLOCK_UNLINKED), last(guest, BLOCK_UNLINKED)) == (5, (0, 32, 0, 0))


def test_tail_of_list_says_before_which_block_the_tail_is(guest: Guest) -> None:
    guest.give(4, 8, 12)
    guest.mm.hooks.rules[0]["tail"] = 8
    guest.give(20, tail=True)
    assert guest.free_list(0, MOVABLE) == [12, 20, 8, 4]
    assert last(guest, TAIL_OF_LIST)[:3] == (0, 0, MOVABLE)
    guest.give(24)
    assert guest.free_list(0, MOVABLE) == [24, 12, 20, 8, 4]  # The head stays the head.


def test_may_take_passes_over_a_block(guest: Guest) -> None:
    guest.give(4, 8)
    guest.mm.hooks.rules[0]["not_taken"] = 8
    assert take(guest.mm, 0, 0, MOVABLE, 0) == 4
    assert last(guest, MAY_TAKE) == (0, 4, 0, 0)
    assert take(guest.mm, 0, 0, MOVABLE, 0) == NO_PAGE
    assert take(guest.mm, 0, 0, UNMOVABLE, 1) == NO_PAGE  # Nor by fallback.
    guest.mm.hooks.rules[0]["not_taken"] = -1
    assert take(guest.mm, 0, 0, UNMOVABLE, 1) == 8


def test_may_merge_keeps_a_block_for_itself(guest: Guest) -> None:
    guest.give(4)
    guest.mm.hooks.rules[0]["not_merged"] = 4
    guest.give(5)
    assert guest.free_lists() == {(0, MOVABLE): [5, 4]}
    assert last(guest, MAY_MERGE) == (0, 4, 0, 0)


def test_block_split_for_each_half_with_the_mark_of_the_whole(guest: Guest) -> None:
    guest.give(*range(8, 12))
    report(guest.mm, 0, 8)
    assert take(guest.mm, 0, 0, MOVABLE, 0) == 8
    assert (calls(guest, BLOCK_SPLIT), last(guest, BLOCK_SPLIT)) == (2, (0, 9, 0, MARK_REPORTED))


def test_before_failing_may_have_it_look_once_more(guest: Guest) -> None:
    guest.mm.hooks.rules[0]["attempts"] = 2
    assert alloc(guest.mm, 1, 0, MOVABLE) == NO_PAGE
    assert (calls(guest, BEFORE_FAILING), last(guest, BEFORE_FAILING)) == (3, (1, 0, 2, 0))
    assert guest.mm.actors[1]["failed_allocations"] == 1
    guest.give(6)
    assert alloc(guest.mm, 1, 0, MOVABLE) == 6
    assert calls(guest, BEFORE_FAILING) == 3


def test_lists_forgotten_when_they_are_made_anew(guest: Guest) -> None:
    rebuild_free_lists(guest.mm, 0)
    assert (calls(guest, LISTS_FORGOTTEN), last(guest, LISTS_FORGOTTEN)) == (1, (0, 0, 0, 0))


def test_putting_back_merges_and_stays_silent(guest: Guest) -> None:
    guest.give(4, 5, 8)
    assert isolate(guest.mm, 0, 4, 1)
    guest.give(6, 7)
    forget(guest)
    assert put_back(guest.mm, 0, 4, 1) == 2
    assert (calls(guest, BLOCK_UNLINKED), calls(guest, BLOCK_FREED)) == (1, 0)


def test_a_hook_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no hook 'block_feed'; there are: page_freed"):
        with_hooks(block_feed=len)


def test_every_hook_is_tried_here() -> None:
    hooks = type(Guest(ZoneOf(pages=16), mechanism=Watching()).mm.hooks)
    assert all(hasattr(hooks, name) for name in HOOKS)


def test_a_class_has_the_hooks_it_names_only() -> None:
    @with_hooks(block_freed=len)
    class Some(NamedTuple):
        unused: int = 0

    assert Some.block_freed("abc") == 3  # type: ignore[attr-defined]  # Not bound to an instance.
    assert not hasattr(Some, "may_take")
