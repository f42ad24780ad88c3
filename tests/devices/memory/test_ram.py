"""Guest RAM in its file: what lies where, what is shared, and what counts as resident."""

import os

import numpy as np
import pytest

from devices.memory.ram import PAGE_SIZE, GuestRam, RamKind

SIZE_BYTES = 8 << 20


@pytest.mark.parametrize(("kind", "words"), [("memfd", SIZE_BYTES // 8), ("accounted", 2048)])
def test_words_and_huge_words_lie_behind_each_other(kind: RamKind, words: int) -> None:
    ram = GuestRam.create(kind, SIZE_BYTES, huge=True)
    view = ram.view()
    assert (len(view.words), len(view.huge)) == (words, 4)
    view.words[:] = -1
    assert not view.huge.any()
    again = GuestRam(os.dup(ram.fd), kind, SIZE_BYTES, huge=True)
    again.view().huge[3] = 1
    assert view.huge.tolist() == [0, 0, 0, 1]
    again.close()
    ram.close()
    assert view.words[0] == -1  # The mapping lives as long as its views.


def test_what_lies_behind_the_ram_is_not_resident_ram() -> None:
    ram = GuestRam.create("memfd", SIZE_BYTES, huge=True)
    assert ram.file_resident_bytes() == 0
    view = ram.view()
    view.huge[:] = 1
    view.words[::512] = 1
    assert ram.file_resident_bytes() == SIZE_BYTES
    ram.close()


def test_a_memfd_of_small_pages_has_nothing_behind_it() -> None:
    ram = GuestRam.create("memfd", SIZE_BYTES)
    assert ram.file_bytes == SIZE_BYTES
    assert ram.view().huge.size == 0
    ram.view().words[0] = 1
    assert ram.file_resident_bytes() == PAGE_SIZE
    assert np.count_nonzero(ram.view().words) == 1
    ram.close()
