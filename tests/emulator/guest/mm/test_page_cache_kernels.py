"""Files are read into the cache and written there; every page on the list where Linux has it."""

import numpy as np
import pytest

from emulator.guest.mm.layout import ALLOCATED, CACHE, MOVABLE, NO_PAGE, SLOT_REFERENCED
from tests.support.allocator_kernels import alloc
from tests.support.files import Files, guest_with_files


@pytest.fixture
def files() -> Files:
    """Slots 0 to 15, 16 to 23 and 24 to 63."""
    return guest_with_files(16, 8, 40)


def test_the_first_read_goes_to_the_inactive_head_the_second_to_the_active(files: Files) -> None:
    files.read(0, 9)
    files.read(0, 5)
    assert (files.inactive, files.active) == ([5, 9], [])
    files.read(0, 9)
    assert (files.inactive, files.active) == ([5], [9])
    assert files.mm.cache.slots["flags"][9] & SLOT_REFERENCED == 0
    files.read(0, 9)  # Referenced once more, where it is.
    files.read(0, 5)
    assert (files.inactive, files.active) == ([], [5, 9])
    assert files.mm.cache.slots["flags"][9] & SLOT_REFERENCED
    assert files.guest.counts()[CACHE] == 2


def test_a_write_is_no_access(files: Files) -> None:
    for _ in range(3):
        files.write(2, 7)
    assert (files.inactive, files.active) == ([31], [])
    assert (files.dirty(), files.control["dirty_pages"]) == ({31}, 1)
    assert files.mm.cache.slots[31]["version"] == 3


@pytest.mark.parametrize(
    ("reads", "cached"),
    [
        ([(0, 0, 1)], [0, 1, 2, 3]),  # From the beginning.
        ([(0, 5, 1)], [5]),  # Anywhere else: what is asked for.
        ([(0, 5, 3)], [5, 6, 7]),
        ([(0, 5, 1), (0, 6, 1)], [5, 6, 7, 8, 9]),  # Where the last one ended.
        ([(0, 5, 1), (0, 7, 1)], [5, 7]),
        ([(1, 6, 1), (1, 7, 1)], [22, 23]),  # Not beyond the file's end.
        ([(0, 2, 1), (0, 0, 1)], [0, 1, 2, 3]),  # Not what is there already.
        ([(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1)], [0, 1, 2, 3]),
        ([(0, 0, 6)], list(range(6))),
    ],
)
def test_read_ahead(files: Files, reads: list[tuple[int, int, int]], cached: list[int]) -> None:
    for file, index, count in reads:
        assert files.read(file, index, count) == count
    assert files.cached() == set(cached)


def test_requests_to_the_host_are_of_adjacent_pages(files: Files) -> None:
    files.read(0, 2)
    assert (files.control["host_reads"], files.control["host_read_pages"]) == (1, 1)
    files.read(0, 0)  # 0 and 1, then 3.
    assert (files.control["host_reads"], files.control["host_read_pages"]) == (3, 4)
    assert (files.control["reads"], files.control["missed_pages"]) == (2, 2)


def test_what_is_read_is_paid_for(files: Files) -> None:
    files.control["host_read_ns"], files.control["disk_read_ns"] = 10, 1000
    files.read(0, 5)
    assert files.mm.cache.io[0]["owed_ns"] == 1010
    files.read(0, 5)
    assert files.mm.cache.io[0]["owed_ns"] == 1010
    files.drop()
    files.read(0, 5)  # The host has it in its own cache.
    assert files.mm.cache.io[0]["owed_ns"] == 1020
    assert (files.control["disk_read_pages"], files.control["host_cache_pages"]) == (1, 1)


def test_host_and_guest_have_the_same_pages_twice(files: Files) -> None:
    files.read(0, 0, 4)
    files.write(0, 8, 2)  # Not at the host yet.
    assert files.control["duplicate_pages"] == 4
    files.write_back()
    assert (files.control["duplicate_pages"], files.control["host_cache_pages"]) == (6, 6)
    assert files.drop() == 6
    assert (files.control["duplicate_pages"], files.control["host_cache_pages"]) == (0, 6)
    files.guest.counts()


def test_dropping_spares_dirty_and_mapped_pages(files: Files) -> None:
    files.read(0, 5)
    files.read(0, 7, mapped=True)
    files.write(0, 9)
    assert files.drop() == 1
    assert files.cached() == {7, 9}
    files.write_back()
    files.unmap()
    assert files.drop() == 2
    counts = files.guest.counts()
    assert (counts[CACHE], counts[ALLOCATED], files.control["mapped_pages"]) == (0, 0, 0)


def test_an_access_through_page_tables_counts_when_it_is_unmapped(files: Files) -> None:
    files.read(0, 7, mapped=True)
    assert files.mm.cache.slots["flags"][7] & SLOT_REFERENCED == 0
    files.unmap()
    assert files.mm.cache.slots["flags"][7] & SLOT_REFERENCED
    assert files.control["mapped_pages"] == 0


def test_what_was_written_is_read_again(files: Files) -> None:
    files.write(0, 5, 3)
    files.write(0, 6)
    files.write_back()
    files.drop()
    assert files.read(0, 5, 3) == 3
    assert files.mm.cache.slots["version"][5:8].tolist() == [1, 2, 1]
    assert files.violations() == 0
    assert files.mm.actors[0]["pages_checked"] == 3


def test_a_page_that_was_discarded_in_the_cache_is_a_violation(files: Files) -> None:
    files.read(0, 5)
    files.ram.words[files.mm.cache.slots[5]["pfn"]] = 0
    files.read(0, 5)
    assert files.violations() == 1


def test_a_page_that_was_dropped_unwritten_is_a_violation(files: Files) -> None:
    files.write(0, 5)
    files.mm.cache.slots[5]["flags"] = 0  # The dirty bit is lost.
    files.mm.cache.files[0]["dirty_pages"] = files.control["dirty_pages"] = 0
    files.drop()
    with pytest.raises(AssertionError, match="it was dropped unwritten"):
        files.guest.counts()
    files.read(0, 5)
    assert files.violations() == 1


def test_without_memory_there_is_less_to_read_and_nothing_is_lost() -> None:
    files = guest_with_files(64, pages=1024, high=2000)
    held = 0
    while alloc(files.mm, 0, 0, MOVABLE) != NO_PAGE:
        held += 1
        if held == 1024 - 10:
            break
    for index in range(32):
        files.read(0, 2 * index, mapped=True)
    files.mm.cache.slots["flags"] |= 0x08  # All accessed: nothing to reclaim at first sight.
    got = files.write(0, 1) + files.write(0, 3)
    counts = files.guest.counts()
    assert got == 2  # Reclaim found some on its second look.
    assert counts[ALLOCATED] + counts[CACHE] <= 1024
    assert files.violations() == 0
    assert files.control["unmapped_pages"] > 0


def test_words_of_pages_differ_from_those_of_a_vcpu(files: Files) -> None:
    files.read(0, 0, 8)
    words = files.ram.words[files.mm.cache.slots["pfn"][:8]]
    assert (words < 0).all() and len(np.unique(words)) == 8
