"""Where the guest's pages are at the end, and what is wrong if something is."""

from collections.abc import Callable

import numpy as np
import pytest

from emulator.guest.clock import Clock
from emulator.guest.hinting.layout import HINTING
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.guest.kernel_task import GuestKernel, Standing
from emulator.guest.mm.layout import ACTOR_LOST, MOVABLE, NONE, PAGE_SIZE, PCP
from tests.support.allocator_kernels import alloc, free, isolate, report, touch
from tests.support.guest import Guest, ZoneOf

MECHANISM = PageReporting(order=5)


@pytest.fixture
def guest() -> Guest:
    """In use: 16 pages; on per-CPU lists: 3; reported: 64."""
    guest = Guest(ZoneOf(pages=64), ZoneOf(pages=128, name="MOVABLE"), mechanism=MECHANISM)
    guest.set_pcp(batch=4, high=100)
    report(guest.mm, 0, 0)
    pfn = int(alloc(guest.mm, 0, 4, MOVABLE))
    touch(guest.mm, guest.ram, 0, pfn, 4)
    free(guest.mm, 0, int(alloc(guest.mm, 0, 0, MOVABLE)), 0)
    return guest


def standing(guest: Guest) -> Standing:
    kernel = GuestKernel(guest.mm, MECHANISM, np.zeros(1, HINTING), Clock(guest.mm.kernel))
    return kernel.standing()


def test_every_page_is_in_one_place(guest: Guest) -> None:
    assert standing(guest) == Standing(
        below_order=12 * PAGE_SIZE,
        unreported=96 * PAGE_SIZE,
        percpu=4 * PAGE_SIZE,
        isolated=0,
        balloon=0,
        page_cache=None,
        allocated=16 * PAGE_SIZE,
        unsound="",
    )


def lose_a_page(guest: Guest) -> None:
    guest.mm.pages[64]["kind"] = NONE


def leave_the_per_cpu_lists(guest: Guest) -> None:
    """A page that says it is on such a list, and is on none."""
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    guest.mm.pages[pfn]["kind"] = PCP


def use_without_touching(guest: Guest) -> None:
    alloc(guest.mm, 0, 0, MOVABLE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_a_page, "zone 1, page 64: a page lies in no block"),
        (leave_the_per_cpu_lists, "the per-CPU lists hold 3 pages, 4 are marked so"),
        (use_without_touching, "the vCPUs hold 16 pages and 17 are in use"),
    ],
)
def test_what_is_wrong_is_said(guest: Guest, spoil: Callable[[Guest], None], message: str) -> None:
    spoil(guest)
    assert standing(guest).unsound == message


async def test_blocks_that_no_mechanism_has_in_hand_are_lost(guest: Guest) -> None:
    (block,) = guest.free_list(5, MOVABLE, 1)
    assert isolate(guest.mm, 1, block, 5)
    found = standing(guest)
    assert found.isolated == 32 * PAGE_SIZE
    assert found.unsound == (
        f"the mechanism page_reporting isolated {32 * PAGE_SIZE} bytes and never put them back"
    )


def test_a_vcpu_that_was_killed_may_not_have_counted_its_last(guest: Guest) -> None:
    use_without_touching(guest)
    guest.mm.actors[0]["state"] = ACTOR_LOST
    assert standing(guest).unsound == ""
