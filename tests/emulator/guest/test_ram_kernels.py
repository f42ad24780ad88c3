"""The oracle: content that no other page or allocation has is checked before a page is freed."""

import mmap
import tempfile

import numpy as np
import pytest

from devices.memory.ram import RamView
from emulator.guest.mm.layout import MOVABLE
from tests.support.allocator_kernels import alloc, free, touch, verify
from tests.support.guest import Guest, ZoneOf


@pytest.fixture
def guest() -> Guest:
    return Guest(ZoneOf(pages=256), cpus=2, pageblock_order=4)


def violations(guest: Guest, cpu: int = 0) -> int:
    return int(guest.mm.actors[cpu]["violations"])


def touched(guest: Guest, cpu: int = 0, order: int = 2) -> int:
    pfn = int(alloc(guest.mm, cpu, order, MOVABLE))
    touch(guest.mm, guest.ram, cpu, pfn, order)
    return pfn


def test_what_was_written_is_found(guest: Guest) -> None:
    pfn = touched(guest)
    verify(guest.mm, guest.ram, 0, pfn, 2)
    actor = guest.mm.actors[0]
    assert violations(guest) == 0
    assert [int(actor[it]) for it in ("pages_touched", "pages_checked", "faults")] == [4, 4, 4]
    assert actor["held_pages"] == 0


@pytest.mark.parametrize("page", range(4))
def test_a_page_that_was_discarded_in_use_is_a_violation(guest: Guest, page: int) -> None:
    pfn = touched(guest)
    guest.ram.words[pfn + page] = 0
    verify(guest.mm, guest.ram, 0, pfn, 2)
    assert violations(guest) == 1


def test_another_allocation_of_the_same_page_is_a_violation(guest: Guest) -> None:
    pfn = touched(guest)
    before = guest.ram.words[pfn]
    free(guest.mm, 0, pfn, 2)
    assert touched(guest) == pfn
    assert guest.ram.words[pfn] != before
    guest.ram.words[pfn] = before
    verify(guest.mm, guest.ram, 0, pfn, 2)
    assert violations(guest) == 1


def test_another_page_s_content_is_a_violation(guest: Guest) -> None:
    pfn = touched(guest)
    guest.ram.words[pfn] = guest.ram.words[pfn + 1]
    verify(guest.mm, guest.ram, 0, pfn, 2)
    assert violations(guest) == 1


def test_checking_what_is_not_in_use_is_a_violation(guest: Guest) -> None:
    pfn = touched(guest)
    free(guest.mm, 0, pfn, 2)
    guest.mm.pages[pfn]["stamp"] = int(guest.ram.words[pfn]) & 0xFFFFFFFF
    verify(guest.mm, guest.ram, 0, pfn, 2)
    assert violations(guest) == 1


def test_no_two_vcpus_write_the_same(guest: Guest) -> None:
    words = set()
    for _ in range(20):
        for cpu in (0, 1):
            pfn = touched(guest, cpu, order=0)
            words.add(int(guest.ram.words[pfn]) & 0xFFFFFFFF)
    assert len(words) == 40
    assert 0 not in words


def test_a_page_that_is_resident_is_no_fault_again(guest: Guest) -> None:
    pfn = touched(guest)
    free(guest.mm, 0, pfn, 2)
    assert touched(guest) == pfn
    assert guest.mm.actors[0]["faults"] == 4
    assert guest.mm.actors[0]["pages_touched"] == 8


def test_of_real_memory_the_first_word_of_each_page_is_used(guest: Guest) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(256 * 4096)
        words = np.frombuffer(mmap.mmap(file.fileno(), 256 * 4096), np.int64)
        ram = RamView(words, 9, 0)
        pfn = int(alloc(guest.mm, 0, 1, MOVABLE))
        touch(guest.mm, ram, 0, pfn, 1)
        assert np.flatnonzero(words).tolist() == [pfn * 512, (pfn + 1) * 512]
        verify(guest.mm, ram, 0, pfn, 1)
        assert violations(guest) == 0
        words[(pfn + 1) * 512] = 0
        verify(guest.mm, ram, 0, pfn, 1)
        assert violations(guest) == 1


def test_a_touch_of_nothing_gets_a_huge_page_where_the_host_has_them(guest: Guest) -> None:
    ram = RamView(np.zeros(1024, np.int64), 0, 1, np.zeros(2, np.int64))
    actor = guest.mm.actors[0]
    pfn = int(alloc(guest.mm, 0, 0, MOVABLE))
    touch(guest.mm, ram, 0, pfn, 0)
    assert (int(actor["faults"]), int(actor["huge_faults"])) == (512, 1)
    assert ram.huge.tolist() == [1, 0]
    assert (ram.words[:512] != 0).all() and not ram.words[512:].any()
    other = int(alloc(guest.mm, 0, 0, MOVABLE))
    touch(guest.mm, ram, 0, other, 0)
    assert actor["faults"] == 512  # It is there already.
    verify(guest.mm, ram, 0, pfn, 0)
    verify(guest.mm, ram, 0, other, 0)
    assert violations(guest) == 0


def test_where_a_huge_page_was_split_a_touch_gets_a_small_one(guest: Guest) -> None:
    ram = RamView(np.zeros(512, np.int64), 0, 1, np.zeros(1, np.int64))
    ram.words[200:] = 1
    pfn = int(alloc(guest.mm, 0, 2, MOVABLE))
    assert pfn + 4 <= 200
    touch(guest.mm, ram, 0, pfn, 2)
    actor = guest.mm.actors[0]
    assert (int(actor["faults"]), int(actor["huge_faults"])) == (4, 0)
    assert not ram.huge.any()
