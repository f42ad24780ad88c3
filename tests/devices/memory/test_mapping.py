"""Mappings that may become huge, and live as long as what looks at them."""

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

from devices.memory.mapping import HUGE_PAGE_SIZE, map_file, populate_huge

SIZE = 5 * HUGE_PAGE_SIZE + 3 * 4096


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("mapping-test")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def mapped_at(address: int) -> bool:
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        spans = [line.split()[0].split("-") for line in maps]
    return any(int(start, 16) <= address < int(end, 16) for start, end in spans)


def test_it_begins_at_a_huge_page_and_shows_the_file(file: int) -> None:
    memory = map_file(file, SIZE)
    assert memory.ctypes.data % HUGE_PAGE_SIZE == 0
    assert memory.shape == (SIZE,)
    memory[SIZE - 1] = 7
    assert os.pread(file, 1, SIZE - 1) == b"\x07"
    os.pwrite(file, b"\x09", 4096)
    assert memory[4096] == 9


def test_two_mappings_share_the_memory(file: int) -> None:
    one, other = map_file(file, SIZE), map_file(file, SIZE)
    one[123456] = 5
    assert other[123456] == 5


def test_it_is_unmapped_with_the_last_view(file: int) -> None:
    memory = map_file(file, SIZE)
    address = memory.ctypes.data
    view = memory[4096:8192].view(np.uint64)
    del memory
    gc.collect()
    assert mapped_at(address)
    view[0] = 1
    del view
    gc.collect()
    assert not mapped_at(address)


def test_populating_keeps_what_is_there(file: int) -> None:
    memory = map_file(file, SIZE)
    memory[::4096] = 3
    populated = populate_huge(memory)
    assert populated in (0, 5 * HUGE_PAGE_SIZE)  # The kernel may refuse.
    assert (memory[::4096] == 3).all()
    assert memory[1] == 0


def test_a_file_that_cannot_be_mapped_is_an_os_error() -> None:
    with pytest.raises(OSError, match="mapping 4096 bytes"):
        map_file(-1, 4096)
