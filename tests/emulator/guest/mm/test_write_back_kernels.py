"""Dirty pages are written in Linux's order, and again if they are dirtied on the way."""

import numpy as np
import pytest

from emulator.guest.mm.layout import SLOT_RECLAIM, WRITE_BACK
from emulator.guest.mm.write_back_kernels import begin_write_back, end_write_back
from tests.support import cache_kernels
from tests.support.files import FOR_EVER_NS, Files, guest_with_files


@pytest.fixture
def files() -> Files:
    """Slots 0 to 15, 16 to 23 and 24 to 63."""
    return guest_with_files(16, 8, 40)


def write_at(files: Files, now_ns: int, file: int, index: int, count: int = 1) -> None:
    files.mm.kernel[0]["virtual_now_ns"] = now_ns
    files.write(file, index, count)


def test_the_file_dirty_for_longest_comes_first_its_pages_in_order(files: Files) -> None:
    write_at(files, 10, 1, 6)
    write_at(files, 20, 0, 9)
    write_at(files, 30, 1, 2)
    write_at(files, 40, 0, 3)
    assert files.write_back() == [18, 22]
    assert files.write_back() == [3, 9]
    assert files.write_back() == []
    assert files.dirty() == set()
    files.guest.counts()


def test_only_what_has_expired(files: Files) -> None:
    write_at(files, 10, 1, 0)
    write_at(files, 20, 0, 0)
    assert files.write_back(until_ns=9) == []
    assert files.write_back(until_ns=19) == [16]
    assert files.write_back(until_ns=19) == []
    assert files.write_back(until_ns=20) == [0]


def test_a_large_file_takes_turns_with_the_others(files: Files) -> None:
    write_at(files, 10, 2, 0, 6)
    write_at(files, 20, 0, 0, 2)
    assert files.write_back(4, until_ns=30) == [24, 25, 26, 27]
    write_at(files, 30, 2, 1)  # Behind: for the next turn.
    assert files.write_back(4, until_ns=30) == [28, 29]
    assert files.write_back(4, until_ns=30) == [0, 1]
    assert files.write_back(4, until_ns=30) == []
    assert files.write_back(4, until_ns=31) == [25]


def test_what_is_dirtied_on_the_way_is_written_again(files: Files) -> None:
    files.write(0, 4)
    batch = np.zeros(4, WRITE_BACK)
    assert begin_write_back(files.mm, files.ram, 1, batch, FOR_EVER_NS) == 1
    assert (files.control["dirty_pages"], files.control["writeback_pages"]) == (0, 1)
    files.guest.counts()
    files.write(0, 4)
    assert files.drop() == 0
    end_write_back(files.mm, 1, batch, 1)
    assert files.mm.cache.image[4]["version"] == 1
    assert files.dirty() == {4}
    files.guest.counts()
    assert files.write_back() == [4]
    assert files.mm.cache.image[4]["version"] == 2
    assert files.drop() == 1


def test_what_reclaim_met_goes_to_the_tail_when_it_is_written(files: Files) -> None:
    files.write(0, 4)
    files.read(1, 3)
    assert cache_kernels.inactive(files.mm, 0, 1, True) == (0, 1)
    assert (files.active, files.inactive) == ([4], [19])
    assert files.mm.cache.slots[4]["flags"] & SLOT_RECLAIM
    assert files.control["flush_wanted"] == 1
    files.write_back()
    assert (files.active, files.inactive) == ([], [19, 4])
    assert cache_kernels.inactive(files.mm, 0, 1, True) == (1, 1)
    assert files.cached() == {19}
    files.guest.counts()


def test_what_was_dirtied_since_stays(files: Files) -> None:
    files.write(0, 4)
    cache_kernels.inactive(files.mm, 0, 1, True)
    files.write(0, 4)  # folio_mark_dirty forgets the wish.
    files.write_back()
    assert (files.active, files.inactive) == ([4], [])


def test_a_page_that_was_discarded_is_found_when_it_is_written(files: Files) -> None:
    files.write(0, 4)
    files.ram.words[files.mm.cache.slots[4]["pfn"]] = 0
    files.write_back()
    assert files.violations() == 1
