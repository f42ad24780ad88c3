"""Inflate and deflate: both halves on one array, and a driver that breaks the rules."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.balloon.balloon_pages import BalloonPages
from devices.balloon.features import feature_bits
from devices.balloon.layout import PFN, PFNS_MAX
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.errors import DeviceError
from tests.devices.balloon.machines import (
    ALL_FEATURES,
    DATA_ADDR,
    HIGH,
    HIGH_ADDR,
    HIGH_PAGES,
    HIGH_PFN,
    LOW,
    LOW_PAGES,
    BalloonMachine,
    numbers,
)

PAGE = 4096


def u4(*pfns: int) -> Any:
    return np.array(pfns, PFN)


def test_both_halves_agree_on_what_is_in_the_balloon() -> None:
    machine = BalloonMachine()
    inflate, deflate = machine.page_numbers("inflate"), machine.page_numbers("deflate")
    batch = inflate.add(u4(9, 3, HIGH_PFN + 1, 4, HIGH_PFN))
    assert inflate.publish()
    assert machine.serve("inflate") == [(LOW, 3, 2), (LOW, 9, 1), (HIGH, 0, 2)]
    assert batch.acknowledged is None
    inflate.take_used()
    assert batch.acknowledged
    assert inflate.told_pages == 5
    assert machine.device.balloon_bytes == 5 * PAGE
    deflate.add(u4(4, 9))
    deflate.publish()
    assert machine.serve("deflate") == []
    assert machine.device.pages.pfns().tolist() == [3, HIGH_PFN, HIGH_PFN + 1]
    machine.device.validate()


def test_4_numbers_of_no_page_and_duplicates_are_counted_and_ignored() -> None:
    machine = BalloonMachine()
    last, top = HIGH_PFN + HIGH_PAGES - 1, 0xFFFF_FFFF
    machine.send("inflate", numbers(5, 5, LOW_PAGES, last, last + 1, top, HIGH_PFN - 1, 5))
    assert machine.serve("inflate") == [(LOW, 5, 1), (HIGH, HIGH_PAGES - 1, 1)]
    seen = machine.device.statistics("inflate")
    assert (seen.requests, seen.numbers, seen.accepted) == (1, 8, 2)
    assert (seen.duplicates, seen.outside, seen.unchanged) == (2, 4, 0)
    machine.device.validate()


def test_4_no_more_numbers_than_the_cap_are_taken() -> None:
    machine = BalloonMachine()
    machine.send("inflate", numbers(*[1] * PFNS_MAX, 2, 3))
    assert machine.serve("inflate") == [(LOW, 1, 1)]
    assert machine.device.statistics("inflate").ignored_bytes == 8
    machine = BalloonMachine(pfns_max=2)
    machine.send("inflate", numbers(1, 2, 3))
    assert machine.serve("inflate") == [(LOW, 1, 2)]


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_4_what_is_no_whole_number_is_ignored(tail: int) -> None:
    machine = BalloonMachine()
    machine.send("inflate", numbers(7) + bytes(tail))
    assert machine.serve("inflate") == [(LOW, 7, 1)]
    assert machine.device.statistics("inflate").ignored_bytes == tail


def test_4_a_buffer_may_lie_in_pieces_and_bad_pieces_are_left_out() -> None:
    machine = BalloonMachine()
    machine.data[:8] = np.frombuffer(numbers(0x0102, 6), np.uint8)
    addresses = [DATA_ADDR, 0, DATA_ADDR + 2, (1 << 64) - 2, DATA_ADDR, DATA_ADDR + 4]
    pieces = segments(addresses, [2, 64, 2, 4, 0, 4])  # RAM has no bytes here.
    machine.lend("inflate", pieces, segments([DATA_ADDR], [4]))
    assert machine.serve("inflate") == [(LOW, 6, 1)]
    seen = machine.device.statistics("inflate")
    assert (seen.numbers, seen.outside, seen.bad_buffers) == (2, 1, 4)


def test_a_buffer_as_long_as_can_be_costs_no_more_than_the_cap() -> None:
    machine = BalloonMachine()
    lengths = [0xFFFF, 0xFFFF_0000]
    machine.lend("inflate", segments([DATA_ADDR + 1, DATA_ADDR], lengths), NO_SEGMENTS)
    machine.serve("inflate")
    seen = machine.device.statistics("inflate")
    assert (seen.numbers, seen.bad_buffers) == (PFNS_MAX, 1)
    assert seen.ignored_bytes == 0xFFFF - 4 * PFNS_MAX


def test_11_a_page_that_is_not_in_the_balloon_is_deflated_without_effect() -> None:
    machine = BalloonMachine()
    machine.send("deflate", numbers(1, 2))
    assert machine.serve("deflate") == []
    assert machine.device.statistics("deflate").unchanged == 2
    assert machine.device.balloon_bytes == 0
    machine.device.validate()


def test_a_page_that_is_inflated_again_is_discarded_again() -> None:
    machine = BalloonMachine()
    for _ in range(2):
        machine.send("inflate", numbers(8))
        assert machine.serve("inflate") == [(LOW, 8, 1)]
    assert machine.device.statistics("inflate").unchanged == 1
    assert machine.device.balloon_bytes == PAGE
    machine.device.validate()


def test_inflated_pages_are_discarded_whatever_the_poison_value() -> None:
    machine = BalloonMachine()
    machine.config.write(12, b"\xaa" * 4)
    machine.send("inflate", numbers(8))
    assert machine.serve("inflate") == [(LOW, 8, 1)]


def test_8_the_numbers_are_read_once() -> None:
    machine = BalloonMachine()
    machine.send("inflate", numbers(8))
    request = machine.device.take("inflate")
    assert request is not None
    machine.data[:] = 0xFF  # Too late.
    assert request.ranges.tolist() == [(LOW, 8 * PAGE, PAGE)]
    assert machine.device.pages.pfns().tolist() == [8]


def test_10_a_large_host_page_is_discarded_when_all_of_it_is_in_the_balloon() -> None:
    machine = BalloonMachine(granule_bytes=4 * PAGE)
    machine.send("inflate", numbers(4, 5, 7))
    assert machine.serve("inflate") == []
    machine.send("inflate", numbers(6, 8, 9, 10, 11))
    assert machine.serve("inflate") == [(LOW, 4, 8)]
    machine.send("deflate", numbers(9))
    machine.serve("deflate")
    machine.send("inflate", numbers(8))
    assert machine.serve("inflate") == []
    machine.send("inflate", numbers(9))
    assert machine.serve("inflate") == [(LOW, 8, 4)]


def test_a_granule_that_is_no_page_size_is_rejected() -> None:
    for granule_bytes in (0, 2048, 12288):
        with pytest.raises(ValueError, match="a power of two from 4096 on"):
            BalloonMachine(granule_bytes=granule_bytes)


def test_a_reset_empties_the_balloon_and_forgets_what_the_driver_wrote() -> None:
    machine = BalloonMachine()
    machine.device.set_target(3)
    machine.config.write(4, (3).to_bytes(4, "little"))
    machine.config.write(12, b"\xaa" * 4)
    machine.send("inflate", numbers(1, 2, 3))
    machine.serve("inflate")
    machine.device.reset()
    assert machine.device.balloon_bytes == 0
    assert machine.config.words[0].tolist() == (3, 0, 0, 0, 0)
    machine.device.validate()


def test_memory_may_be_replaced_and_what_still_exists_stays_in_the_balloon() -> None:
    machine = BalloonMachine()
    machine.send("inflate", numbers(3, HIGH_PFN + 2))
    machine.serve("inflate")
    for name in list(machine.device.queues):
        machine.device.detach_queue(name)
    region = MemoryRegion(guest_addr=HIGH_ADDR, size_bytes=3 * PAGE)
    machine.device.replace_memory(AddressSpace([region]))
    assert machine.device.pages.pfns().tolist() == [HIGH_PFN + 2]
    assert machine.device.pages.size_pages == 3


def test_a_target_beyond_the_guest_is_rejected() -> None:
    machine = BalloonMachine()
    pages = machine.device.pages.size_pages
    machine.device.set_target(pages)
    assert machine.changes == 1
    for target in (-1, pages + 1):
        with pytest.raises(ValueError, match=f"the guest has {pages}"):
            machine.device.set_target(target)
    assert machine.config.words[0]["num_pages"] == pages


def test_a_driver_sends_at_most_an_array_and_one_batch_at_a_time() -> None:
    driver = BalloonMachine().page_numbers("inflate")
    for count in (0, PFNS_MAX + 1):
        with pytest.raises(ValueError, match="1 to 256 work"):
            driver.add(np.zeros(count, PFN))
    driver.add(np.arange(PFNS_MAX, dtype=PFN))
    with pytest.raises(AssertionError):
        driver.add(u4(1))


def test_the_third_word_says_whether_page_cache_goes_first_if_it_is_no_hint_command() -> None:
    machine = BalloonMachine(feature_bits(["stats_vq", "balloon_hint"]))
    machine.device.set_reclaim_cache_first(True)
    assert (machine.config.read(8, 4), machine.changes) == (b"\1\0\0\0", 1)
    machine.device.reset()  # The driver's; what the host wishes stays.
    assert machine.config.read(8, 4) == b"\1\0\0\0"
    with pytest.raises(ValueError, match="with free page hints there is no reclaim_cache_first"):
        BalloonMachine().device.set_reclaim_cache_first(True)


def test_a_reset_ends_a_batch_unacknowledged() -> None:
    machine = BalloonMachine()
    driver = machine.page_numbers("inflate")
    batch = driver.add(u4(1))
    driver.publish()
    driver.reset()
    assert batch.acknowledged is False
    machine.device.reset()
    driver.restart()
    driver.add(u4(2))
    driver.publish()
    assert machine.serve("inflate") == [(LOW, 2, 1)]


def test_a_device_that_lies_is_found_out() -> None:
    machine = BalloonMachine(features=ALL_FEATURES)
    driver = machine.page_numbers("inflate")
    driver.add(u4(1))
    driver.publish()
    machine.drivers["inflate"]._views.used_ring[0] = (9, 0)
    machine.drivers["inflate"]._views.used[1]["word"] = 1
    with pytest.raises(DeviceError):
        driver.take_used()


PFNS = st.one_of(
    st.integers(0, LOW_PAGES + 1),
    st.integers(HIGH_PFN - 1, HIGH_PFN + HIGH_PAGES),
    st.integers(0, 0xFFFF_FFFF),
)
MOVES = st.lists(st.tuples(st.booleans(), st.lists(PFNS, max_size=40)), max_size=12)


@given(MOVES, st.sampled_from([1, 2, 8]))
def test_the_record_is_a_set_of_pages(moves: list[tuple[bool, list[int]]], granule: int) -> None:
    space = AddressSpace(
        [
            MemoryRegion(guest_addr=0, size_bytes=LOW_PAGES * PAGE),
            MemoryRegion(guest_addr=HIGH_ADDR, size_bytes=HIGH_PAGES * PAGE - 1),
        ]
    )
    pages = BalloonPages(space, granule_bytes=granule * PAGE)
    starts, sizes = (0, HIGH_PFN), (LOW_PAGES, HIGH_PAGES - 1)
    every = {start + i for start, size in zip(starts, sizes, strict=True) for i in range(size)}
    model: set[int] = set()
    for inflate, pfns in moves:
        named = set(pfns)
        before = set(model)
        if not inflate:
            model -= named
            taken = pages.deflate(u4(*pfns))
            assert taken[0]["accepted"] == len(before - model)
        else:
            model |= named & every
            ranges, taken = pages.inflate(u4(*pfns))
            discarded = {
                starts[region] + offset // PAGE + i
                for region, offset, length in ranges.tolist()
                for i in range(length // PAGE)
            }
            assert discarded == _whole_granules(named & every, model, starts, granule)
            _check_apart(ranges)
            assert taken[0]["accepted"] == len(model - before)
        assert taken[0]["outside"] == len(named - every)
        assert set(pages.pfns().tolist()) == model
        pages.validate()


def _whole_granules(
    named: set[int], model: set[int], starts: tuple[int, ...], granule: int
) -> set[int]:
    """The pages of those granules that were named and are in the balloon as a whole."""
    found: set[int] = set()
    for pfn in named:
        start = max(it for it in starts if it <= pfn)
        first = pfn - (pfn - start) % granule
        pages = set(range(first, first + granule))
        found |= pages if pages <= model else set()
    return found


def _check_apart(ranges: Any) -> None:
    """Ascending, none touching the next."""
    for (region, offset, length), (after, at, _) in zip(
        ranges.tolist(), ranges.tolist()[1:], strict=False
    ):
        assert region < after or (region == after and offset + length < at)


BUFFERS = st.lists(
    st.tuples(
        st.sampled_from([DATA_ADDR, DATA_ADDR + 4, 0, HIGH_ADDR, (1 << 64) - 4]),
        st.integers(0, 80) | st.just(0xFFFF_FFFF),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(
    st.sampled_from(["inflate", "deflate", "stats", "reporting"]),
    st.binary(max_size=64),
    st.lists(BUFFERS, max_size=4),
)
def test_whatever_a_driver_sends_is_completed(
    name: str, data: bytes, chains: list[list[tuple[int, int, bool]]]
) -> None:
    machine = BalloonMachine()
    machine.data[: len(data)] = np.frombuffer(data, np.uint8)
    sent = 0
    for chain in chains:
        if sum(length for _, length, _ in chain) > 1 << 32:
            continue
        kinds = np.array([writable for *_, writable in chain])
        buffers = segments([addr for addr, *_ in chain], [length for _, length, _ in chain])
        machine.lend(name, buffers[~kinds], buffers[kinds])
        sent += 1
    for region, page, pages in machine.serve(name):
        assert page >= 0
        assert (page + pages) * PAGE <= machine.space.regions[region].size_bytes
    if name == "stats":
        machine.device.ask_statistics()
    assert len(machine.drivers[name].pop_used()) == sent
    machine.device.validate()
