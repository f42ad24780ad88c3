import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.memory.address_space import NO_REGION, AddressSpace, MemoryRegion

TOP = 1 << 64
BYTES = np.arange(256, dtype=np.uint8)
LOW = MemoryRegion(guest_addr=0x1000, size_bytes=256, memory=BYTES)
TOUCHING = MemoryRegion(guest_addr=0x1100, size_bytes=0x100)
LAST = MemoryRegion(guest_addr=TOP - 0x1000, size_bytes=0x1000)
SPACE = AddressSpace([LAST, TOUCHING, LOW])


def test_a_view_is_the_memory_itself_and_not_a_copy() -> None:
    view = SPACE.view(0x1010, 16)
    assert view is not None
    assert view.tolist() == list(range(16, 32))
    assert np.shares_memory(view, BYTES)


def test_accounted_memory_has_a_region_but_no_bytes() -> None:
    assert SPACE.region_of(0x1100, 0x100) is TOUCHING
    assert SPACE.view(0x1100, 0x100) is None


def test_touching_regions_are_two() -> None:
    assert SPACE.region_of(0x10FF, 1) is LOW
    assert SPACE.region_of(0x10FF, 2) is None


@pytest.mark.parametrize(
    ("addr", "length"),
    [(0x1000, 0), (0x1000, 257), (0xFFF, 1), (0, TOP - 1), (-1, 2), (0x1000, -1), (0x1200, 1)],
)
def test_nothing_is_found_outside_one_region(addr: int, length: int) -> None:
    assert SPACE.region_of(addr, length) is None
    assert SPACE.view(addr, length) is None


def test_3_the_end_of_the_64_bit_addresses_does_not_wrap() -> None:
    assert SPACE.region_of(TOP - 1, 1) is LAST
    assert SPACE.region_of(TOP - 1, 2) is None
    addr = np.array([TOP - 1, TOP - 1, TOP - 0x1000], dtype=np.uint64)
    length = np.array([1, TOP - 1, 0x1000], dtype=np.uint64)
    assert SPACE.indices_of(addr, length).tolist() == [2, NO_REGION, 2]


near = st.sampled_from([0, 0x1000, 0x1100, 0x1200, TOP - 0x1000, TOP - 1]).flatmap(
    lambda base: st.integers(max(base - 2, 0), min(base + 2, TOP - 1))
)
lengths = st.sampled_from([0, 1, 2, 0xFF, 0x100, 0x101, 0x1000, 0xFFFFFFFF])


@given(st.lists(st.tuples(near | st.integers(0, TOP - 1), lengths), max_size=20))
def test_the_array_check_agrees_with_the_single_one(ranges: list[tuple[int, int]]) -> None:
    addr = np.array([a for a, _ in ranges], dtype=np.uint64)
    length = np.array([n for _, n in ranges], dtype=np.uint32)
    found = [SPACE.region_of(a, n) for a, n in ranges]
    expected = [NO_REGION if r is None else SPACE.regions.index(r) for r in found]
    assert SPACE.indices_of(addr, length).tolist() == expected


def test_no_regions_hold_nothing() -> None:
    empty = AddressSpace([])
    assert empty.region_of(0, 1) is None
    assert empty.indices_of(np.zeros(2, np.uint64), np.ones(2, np.uint32)).tolist() == [-1, -1]


def test_overlapping_regions_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"region at 0x10ff overlaps the one at 0x1000"):
        AddressSpace([MemoryRegion(guest_addr=0x10FF, size_bytes=1), LOW])


@pytest.mark.parametrize(
    ("guest_addr", "size_bytes", "memory", "message"),
    [
        (0, 0, None, "at least 1"),
        (-1, 1, None, "64-bit"),
        (TOP - 1, 2, None, "64-bit"),
        (0, 2, np.zeros(1, np.uint8), r"not uint8\[2\]"),
        (0, 2, np.zeros(2, np.uint16), r"not uint8\[2\]"),
    ],
)
def test_impossible_regions_are_rejected(
    guest_addr: int, size_bytes: int, memory: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryRegion(guest_addr=guest_addr, size_bytes=size_bytes, memory=memory)
