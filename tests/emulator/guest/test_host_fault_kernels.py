"""What a touch puts behind guest memory, and what a discard lets the next touch do."""

from collections.abc import Iterator

import numpy as np
import pytest

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.ram import HUGE_PAGES, PAGE_SIZE, GuestRam
from emulator.guest.mm.layout import MOVABLE
from emulator.host.discard import Discarder
from emulator.host.layout import HOST
from tests.support.allocator_kernels import alloc, free, touch, verify
from tests.support.guest import Guest, ZoneOf
from tests.support.programs import collapses

HUGE_BYTES = HUGE_PAGES * PAGE_SIZE


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    """Two huge pages' worth."""
    ram = GuestRam.create("memfd", 2 * HUGE_BYTES, huge=True)
    yield ram
    ram.close()


@pytest.fixture
def guest() -> Guest:
    return Guest(ZoneOf(pages=2 * HUGE_PAGES))


def discard(ram: GuestRam, first: int, pages: int) -> int:
    discarder = Discarder.of_ram(ram, np.zeros(1, HOST))
    wanted = np.array([(0, first * PAGE_SIZE, pages * PAGE_SIZE)], DISCARD_RANGE)
    try:
        return discarder.discard(wanted)
    finally:
        discarder.close()


def touched(guest: Guest, ram: GuestRam, order: int) -> int:
    pfn = int(alloc(guest.mm, 0, order, MOVABLE))
    touch(guest.mm, ram.view(), 0, pfn, order)
    return pfn


def test_a_touch_gets_2_mib_where_nothing_was(guest: Guest, ram: GuestRam) -> None:
    if not collapses():
        pytest.skip("this kernel makes no huge pages of shared memory (MADV_COLLAPSE, Linux 6.1)")
    pfn = touched(guest, ram, 0)
    assert ram.file_resident_bytes() == HUGE_BYTES
    assert guest.mm.actors[0]["huge_faults"] == 1
    other = touched(guest, ram, 0)
    assert other // HUGE_PAGES == pfn // HUGE_PAGES
    assert guest.mm.actors[0]["huge_faults"] == 1  # It is there already.
    for page in (pfn, other):
        verify(guest.mm, ram.view(), 0, page, 0)
    assert guest.mm.actors[0]["violations"] == 0


def test_a_block_over_two_of_them_gets_both(guest: Guest, ram: GuestRam) -> None:
    pfn = touched(guest, ram, 10)
    assert pfn == 0
    assert ram.view().huge.tolist() == [1, 1]
    assert ram.file_resident_bytes() == 2 * HUGE_BYTES  # By small pages or by huge ones.
    verify(guest.mm, ram.view(), 0, pfn, 10)
    assert guest.mm.actors[0]["violations"] == 0


def test_asked_once_until_all_of_it_is_given_back(guest: Guest, ram: GuestRam) -> None:
    pfn = touched(guest, ram, 10)
    view = ram.view()
    assert discard(ram, 0, 8) == 8 * PAGE_SIZE
    assert view.huge.tolist() == [1, 1]  # The rest of it is there: a touch gets a small page.
    assert discard(ram, 8, HUGE_PAGES - 8) == HUGE_BYTES - 8 * PAGE_SIZE
    assert view.huge.tolist() == [0, 1]  # The last part, too, leaves nothing.
    assert discard(ram, HUGE_PAGES, HUGE_PAGES) == HUGE_BYTES
    assert view.huge.tolist() == [0, 0]
    assert ram.file_resident_bytes() == 0
    free(guest.mm, 0, pfn, 10)
    touched(guest, ram, 10)
    assert view.huge.tolist() == [1, 1]
    assert ram.file_resident_bytes() == 2 * HUGE_BYTES


def test_a_page_keeps_its_content_in_a_huge_one(guest: Guest, ram: GuestRam) -> None:
    small = GuestRam(ram.fd, "memfd", ram.size_bytes)  # A view that asks for nothing.
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    touch(guest.mm, small.view(), 0, pfn, 0)
    assert ram.file_resident_bytes() == PAGE_SIZE
    touched(guest, ram, 0)
    verify(guest.mm, ram.view(), 0, pfn, 0)
    assert guest.mm.actors[0]["violations"] == 0
