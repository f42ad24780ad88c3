"""A block of another vCPU is freed by one alone: by who claims it, or by who takes it back."""

import pytest

from emulator.guest.mm.layout import ALLOCATED, BUDDY, MOVABLE
from emulator.guest.recovery_task import take_back
from tests.support.allocator_kernels import alloc, claim, free
from tests.support.guest import Guest, ZoneOf


@pytest.fixture
def guest() -> Guest:
    return Guest(ZoneOf(pages=64), cpus=2, pageblock_order=4)


def in_use(guest: Guest) -> tuple[int, int]:
    """A block of vCPU 0, and its stamp."""
    pfn = int(alloc(guest.mm, 0, 4, MOVABLE))
    guest.mm.pages[pfn]["stamp"] = 77
    return pfn, 77


async def test_what_another_has_claimed_is_not_taken_back(guest: Guest) -> None:
    pfn, stamp = in_use(guest)
    assert claim(guest.mm, 1, pfn, stamp)
    assert await take_back(guest.mm, 0, now_ns=0) == 0
    assert guest.mm.pages[pfn]["kind"] == ALLOCATED
    free(guest.mm, 1, pfn, 4)
    assert guest.counts()[BUDDY] == 64


async def test_what_is_taken_back_cannot_be_claimed(guest: Guest) -> None:
    pfn, stamp = in_use(guest)
    assert await take_back(guest.mm, 0, now_ns=0) == 16
    assert not claim(guest.mm, 1, pfn, stamp)
    assert guest.counts()[BUDDY] == 64


@pytest.mark.parametrize("kind", [ALLOCATED, BUDDY])
def test_what_is_being_taken_back_cannot_be_claimed(guest: Guest, kind: int) -> None:
    pfn, stamp = in_use(guest)
    guest.mm.pages[pfn]["owner"] = 2  # The guest's kernel has it, and has not freed it yet, or has.
    guest.mm.pages[pfn]["kind"] = kind
    assert not claim(guest.mm, 1, pfn, stamp)
    assert guest.mm.pages[pfn]["owner"] == 2


async def test_who_has_it_next_keeps_it(guest: Guest) -> None:
    pfn, stamp = in_use(guest)
    await take_back(guest.mm, 0, now_ns=0)
    assert int(alloc(guest.mm, 1, 4, MOVABLE)) == pfn
    guest.mm.pages[pfn]["stamp"] = 78
    assert not claim(guest.mm, 0, pfn, stamp)
    assert guest.mm.pages[pfn]["owner"] == 1


def test_one_owns_ones_own(guest: Guest) -> None:
    pfn, stamp = in_use(guest)
    assert claim(guest.mm, 0, pfn, stamp)
    assert guest.mm.pages[pfn]["owner"] == 0
