"""Pages into the balloon and out of it, on zones small enough to work out by hand."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.balloon.layout import PFN
from emulator.guest.balloon.kernels import (
    dequeue_pages,
    enqueue_pages,
    release_pages,
    take_pages,
)
from emulator.guest.balloon.layout import BALLOON_STATE, NOTHING
from emulator.guest.hinting.mechanisms.page_reporting import IDLE, PageReporting
from emulator.guest.mm.layout import ALLOCATED, BALLOON, BUDDY, MOVABLE, NO_PAGE, UNMOVABLE
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf

ACTOR = 1  # The kernel of a guest with one vCPU.


class Inflated:
    """A guest and its balloon's state."""

    def __init__(self, *zones: ZoneOf, deflate_on_oom: bool = True, **options: Any) -> None:
        self.guest = Guest(*zones, pageblock_order=4, **options)
        self.mm = self.guest.mm
        self.state = np.zeros(1, BALLOON_STATE)
        self.state[0]["top"] = NOTHING
        self.state[0]["deflate_on_oom"] = deflate_on_oom

    def take(self, count: int, *, cache_first: bool = False) -> list[int]:
        pfns = np.zeros(count, PFN)
        got = take_pages(self.mm, ACTOR, self.state, pfns, count, cache_first)
        self.check()
        return [int(pfn) for pfn in pfns[:got]]

    def enqueue(self, pfns: list[int]) -> list[int]:
        """The numbers in the order in which the host is told of them."""
        sent = np.array(pfns, PFN)
        enqueue_pages(self.mm, ACTOR, self.state, sent, len(sent))
        self.check()
        return [int(pfn) for pfn in sent]

    def inflate(self, count: int) -> list[int]:
        return self.enqueue(self.take(count))

    def dequeue(self, count: int) -> list[int]:
        pfns = np.zeros(count, PFN)
        got = dequeue_pages(self.mm, self.state, pfns, count)
        self.check()
        return [int(pfn) for pfn in pfns[:got]]

    def release(self, pfns: list[int]) -> None:
        release_pages(self.mm, ACTOR, self.state, np.array(pfns, PFN), len(pfns))
        self.check()

    def check(self) -> None:
        """Every page is in one place, and the balloon's are as many as its state says."""
        counts = self.guest.counts()
        assert counts[BALLOON] == self.state[0]["pages"] + self.state[0]["between"]

    def kinds(self, pfns: list[int]) -> set[int]:
        return {int(self.mm.pages[pfn]["kind"]) for pfn in pfns}


def test_pages_come_one_by_one_from_the_head_of_the_lists() -> None:
    inflated = Inflated(ZoneOf(pages=64))
    inflated.guest.fill(0)
    inflated.guest.give(*range(4), *range(8, 10))
    assert inflated.guest.free_lists() == {(1, MOVABLE): [8], (2, MOVABLE): [0]}
    # The smallest block first: 8 and 9; then the lower half of 0 to 3, which is split.
    assert inflated.take(3) == [8, 9, 0]
    assert inflated.guest.free_lists() == {(0, MOVABLE): [1], (1, MOVABLE): [2]}
    assert inflated.state[0]["between"] == 3
    assert inflated.take(9) == [1, 2, 3]
    assert inflated.take(1) == []


def test_what_entered_last_leaves_first() -> None:
    inflated = Inflated(ZoneOf(pages=16))
    assert inflated.take(3) == [0, 1, 2]
    assert inflated.enqueue([0, 1, 2]) == [2, 1, 0]  # Linux pops them from the list it pushed to.
    assert inflated.inflate(2) == [4, 3]
    assert inflated.state[0]["pages"] == 5
    assert inflated.dequeue(3) == [3, 4, 0]
    assert inflated.kinds([0, 3, 4]) == {BALLOON}  # Not free before the host knows.
    inflated.release([3, 4, 0])
    assert inflated.kinds([0, 3]) == {BUDDY}
    assert inflated.dequeue(9) == [1, 2]
    assert inflated.dequeue(1) == []
    inflated.release([1, 2])
    assert inflated.guest.free_lists() == {(4, MOVABLE): [0]}
    assert int(inflated.state[0]["pages"]) == int(inflated.state[0]["between"]) == 0


def test_it_stops_at_the_min_watermark_and_keeps_the_lower_zones_reserve() -> None:
    low = ZoneOf(pages=64, name="DMA32", watermark_min=8, watermark_low=10)
    high = ZoneOf(pages=64, watermark_min=4, watermark_low=6)
    inflated = Inflated(low, high)
    inflated.mm.zones[0]["lowmem_reserve"] = 20
    taken = inflated.take(100)
    # Down to the low marks first: 58 of the higher zone, 34 of the lower; then to the min marks.
    assert [pfn // 64 for pfn in taken] == [1] * 58 + [0] * 34 + [1] * 2 + [0] * 2
    assert inflated.mm.zones["free_pages"].tolist() == [28, 4]


def test_pages_of_another_type_are_taken_when_there_are_no_movable_ones() -> None:
    inflated = Inflated(ZoneOf(pages=16))
    for pfn in inflated.guest.fill(0):
        inflated.mm.pageblocks[0] = UNMOVABLE
        inflated.guest.give(pfn, migratetype=UNMOVABLE)
    assert len(inflated.take(16)) == 16


def test_without_deflate_on_oom_the_guest_counts_its_pages_as_gone() -> None:
    zones = (ZoneOf(pages=32, name="DMA32"), ZoneOf(pages=16))
    for deflate_on_oom, managed in ((False, [28, 0]), (True, [32, 16])):
        inflated = Inflated(*zones, deflate_on_oom=deflate_on_oom)
        taken = inflated.take(20)
        assert inflated.mm.zones["managed"].tolist() == [32, 16]
        inflated.enqueue(taken)
        assert inflated.mm.zones["managed"].tolist() == managed
        inflated.release(inflated.dequeue(20))
        assert inflated.mm.zones["managed"].tolist() == [32, 16]


def test_freed_pages_merge_and_are_seen_by_the_mechanism() -> None:
    mechanism = PageReporting(order=2)
    inflated = Inflated(ZoneOf(pages=16), mechanism=mechanism)
    mechanism.start(inflated.mm, ACTOR)
    inflated.inflate(16)
    inflated.mm.kernel[0]["doorbell"] = 0
    inflated.mm.hooks.control[0]["state"] = IDLE
    inflated.release(inflated.dequeue(16))
    assert inflated.guest.free_lists() == {(4, MOVABLE): [0]}
    assert inflated.mm.kernel[0]["doorbell"] == 1


def test_a_pageblock_of_balloon_pages_can_change_its_type() -> None:
    """They count as movable (balloon compaction), when unmovable memory falls back."""
    inflated = Inflated(ZoneOf(pages=32))
    inflated.inflate(20)
    assert alloc(inflated.mm, 0, 3, UNMOVABLE) != NO_PAGE
    inflated.check()


STEPS = st.lists(
    st.tuples(st.sampled_from(["inflate", "deflate", "alloc", "free"]), st.integers(1, 30)),
    max_size=30,
)


@given(STEPS, st.booleans())
@settings(deadline=None)
def test_no_page_is_lost_whatever_is_done(steps: list[tuple[str, int]], on_oom: bool) -> None:
    zones = (ZoneOf(pages=48, name="DMA32", watermark_min=3), ZoneOf(pages=64, watermark_min=5))
    inflated = Inflated(*zones, deflate_on_oom=on_oom)
    inside: list[int] = []
    held: list[tuple[int, int]] = []
    for step, count in steps:
        if step == "inflate":
            inside += inflated.inflate(count)
        elif step == "deflate":
            left = inflated.dequeue(count)
            assert left == inside[::-1][: len(left)]
            assert len(left) == min(count, len(inside))
            inside = inside[: len(inside) - len(left)]
            inflated.release(left)
        elif step == "alloc":
            order = count % 4
            pfn = int(alloc(inflated.mm, 0, order, MOVABLE))
            if pfn != NO_PAGE:
                assert not set(range(pfn, pfn + (1 << order))) & set(inside)
                held.append((pfn, order))
        elif held:
            free(inflated.mm, 0, *held.pop(count % len(held)))
        assert inflated.state[0]["pages"] == len(inside)
        counts = inflated.guest.counts()
        assert counts[ALLOCATED] == sum(1 << order for _, order in held)
