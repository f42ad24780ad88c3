"""What is discarded really goes, from the right place, and is counted by what was there."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.address_space import MemoryRegion
from devices.memory.mapping import map_file
from devices.memory.ram import PAGE_SIZE
from emulator.host.discard import Discardable, Discarder, join_adjacent
from emulator.host.layout import HOST

PAGES = 64
SKIPPED = 16  # Pages of the file before the region begins.


def ranges(*found: tuple[int, int, int]) -> np.ndarray:
    """(region, first page, pages) each."""
    return np.array(
        [(region, first * PAGE_SIZE, pages * PAGE_SIZE) for region, first, pages in found],
        DISCARD_RANGE,
    )


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("region")
    os.ftruncate(fd, (SKIPPED + PAGES) * PAGE_SIZE)
    yield fd
    os.close(fd)


def region(fd: int, index: int = 0) -> MemoryRegion:
    return MemoryRegion(
        guest_addr=index << 32,
        size_bytes=PAGES * PAGE_SIZE,
        fd=fd,
        fd_offset_bytes=SKIPPED * PAGE_SIZE,
        memory=map_file(fd, (SKIPPED + PAGES) * PAGE_SIZE)[SKIPPED * PAGE_SIZE :],
    )


def resident_pages(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512 // PAGE_SIZE


def test_neighbours_are_joined_and_overlaps_too() -> None:
    found = join_adjacent(
        ranges((0, 8, 4), (0, 0, 4), (0, 4, 4), (1, 0, 8), (0, 20, 4), (0, 21, 1))
    )
    assert found.tolist() == ranges((0, 0, 12), (0, 20, 4)).tolist()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(1, 9)), max_size=12))
def test_what_is_joined_are_the_same_pages_in_as_few_ranges_as_can_be(
    given_ranges: list[tuple[int, int, int]],
) -> None:
    found = join_adjacent(ranges(*given_ranges)).tolist()
    pages = {p for of, first, count in given_ranges if of == 0 for p in range(first, first + count)}
    begins = sorted(page for page in pages if page - 1 not in pages)
    assert [offset // PAGE_SIZE for _, offset, _ in found] == begins
    assert sum(length for *_, length in found) == len(pages) * PAGE_SIZE
    assert all(region == 0 for region, *_ in found)


def test_ranges_that_are_not_joined_are_discarded_one_by_one(fd: int) -> None:
    account = np.zeros(1, HOST)
    os.pwrite(fd, b"\1" * (SKIPPED + PAGES) * PAGE_SIZE, 0)
    discarder = Discarder({0: Discardable.of_memory(region(fd))}, account, join=False)
    # The second again, and part of the first: what is gone does not come back twice.
    given = ranges((0, 8, 8), (0, 0, 8), (1, 0, 8), (0, 8, 8), (0, 2, 2))
    assert discarder.discard(given) == 16 * PAGE_SIZE
    assert account[0]["ranges"] == 4
    discarder.settle()
    assert account[0]["refaulted_bytes"] == 0


def test_a_region_is_discarded_where_its_file_has_it(fd: int) -> None:
    account = np.zeros(1, HOST)
    memory = region(fd)
    assert memory.memory is not None
    os.pwrite(fd, b"\1" * (SKIPPED + PAGES) * PAGE_SIZE, 0)
    discarder = Discarder({0: Discardable.of_memory(memory)}, account)
    assert discarder.discard(ranges((0, 0, 8), (0, 8, 8), (1, 0, 8))) == 16 * PAGE_SIZE
    assert resident_pages(fd) == SKIPPED + PAGES - 16
    assert memory.memory[0] == 0
    assert memory.memory[16 * PAGE_SIZE] == 1
    assert (account[0]["requests"], account[0]["ranges"]) == (1, 1)


def test_only_what_was_resident_counts_as_returned(fd: int) -> None:
    account = np.zeros(1, HOST)
    memory = region(fd)
    assert memory.memory is not None
    memory.memory[2 * PAGE_SIZE] = 1  # One page of eight.
    discarder = Discarder({0: Discardable.of_memory(memory)}, account)
    assert discarder.discard(ranges((0, 0, 8))) == PAGE_SIZE
    assert discarder.discard(ranges((0, 0, 8))) == 0
    assert account[0]["claimed_bytes"] == 16 * PAGE_SIZE
    assert account[0]["returned_bytes"] == PAGE_SIZE


def test_what_was_touched_again_is_found_in_the_end(fd: int) -> None:
    account = np.zeros(1, HOST)
    memory = region(fd)
    assert memory.memory is not None
    os.pwrite(fd, b"\1" * (SKIPPED + PAGES) * PAGE_SIZE, 0)
    discarder = Discarder({0: Discardable.of_memory(memory)}, account)
    discarder.discard(ranges((0, 4, 10), (0, 60, 4)))
    memory.memory[5 * PAGE_SIZE] = 2
    memory.memory[63 * PAGE_SIZE] = 2
    discarder.settle()
    assert account[0]["refaulted_bytes"] == 2 * PAGE_SIZE


def test_a_region_of_which_nothing_came_back_has_nothing_to_settle(fd: int) -> None:
    account = np.zeros(1, HOST)
    memory = region(fd)
    discarder = Discarder({0: Discardable.of_memory(memory)}, account)
    discarder.settle()
    assert memory.memory is not None
    memory.memory[9 * PAGE_SIZE] = 1
    discarder.discard(ranges((0, 9, 1)))
    memory.memory[8 * PAGE_SIZE : 10 * PAGE_SIZE] = 1
    discarder.settle()
    discarder.settle()
    assert account[0]["refaulted_bytes"] == PAGE_SIZE


def test_two_regions_each_lose_their_own() -> None:
    account = np.zeros(1, HOST)
    fds = [os.memfd_create("region") for _ in range(2)]
    for fd in fds:
        os.pwrite(fd, b"\1" * (SKIPPED + PAGES) * PAGE_SIZE, 0)
    found = {index: Discardable.of_memory(region(fd, index)) for index, fd in enumerate(fds)}
    assert Discarder(found, account).discard(ranges((1, 0, 3), (0, 0, 2))) == 5 * PAGE_SIZE
    assert [resident_pages(fd) - SKIPPED - PAGES for fd in fds] == [-2, -3]
    for fd in fds:
        os.close(fd)


def test_a_file_that_cannot_be_punched_is_an_error(fd: int) -> None:
    found = region(fd)
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    memory = dataclasses.replace(found, fd=read_only)
    with pytest.raises(OSError, match="refused"):
        Discarder({0: Discardable.of_memory(memory)}, np.zeros(1, HOST)).discard(ranges((0, 0, 1)))
    os.close(read_only)
