"""Balloon pages that take page cache first, worked out by hand on a zone of 256 pages.

The zone's low watermark is 16, its min watermark 8.  100 pages of a file were read once, page 0
first: slot and page frame are the same, and slot 0 is at the inactive tail.  156 pages are free.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.balloon.layout import BALLOON_CONFIG, PFN
from emulator.guest.balloon.balloon import Balloon
from emulator.guest.balloon.kernels import enqueue_pages, release_pages, take_pages
from emulator.guest.balloon.layout import BALLOON_STATE, NOTHING
from emulator.guest.hinting.mechanisms.balloon_cache_first import BalloonCacheFirst
from emulator.guest.mm.layout import BALLOON, CACHE, MOVABLE, NO_PAGE, SLOT_MAPPED
from emulator.guest.mm.reclaim_kernels import balance_unmapped
from tests.support.allocator_kernels import alloc, free
from tests.support.files import Files, guest_with_files
from tests.support.guest import Guest, ZoneOf


class Cached:
    """The guest above, and a balloon's state."""

    def __init__(self, count: int = 100) -> None:
        self.files = guest_with_files(512, pages=256)
        self.mm = self.files.mm
        self.control = self.files.control
        self.control["read_ahead_pages"] = 1
        for index in range(count):
            self.files.read(0, index)
        zone = self.mm.zones[0]
        zone["watermark_min"], zone["watermark_low"], zone["watermark_high"] = 8, 16, 24
        self.control["min_unmapped_pages"] = 2  # 1 % of 256
        self.state = np.zeros(1, BALLOON_STATE)
        self.state[0]["top"] = NOTHING

    def take(self, count: int, *, cache_first: bool) -> list[int]:
        pfns = np.zeros(count, PFN)
        got = take_pages(self.mm, self.files.kernel, self.state, pfns, count, cache_first)
        assert self.files.guest.counts()[BALLOON] == self.state[0]["between"]
        return [int(pfn) for pfn in pfns[:got]]

    @property
    def free(self) -> int:
        return int(self.mm.zones[0]["free_pages"])


def test_below_low_it_takes_a_sixteenth_of_the_cache_at_a_time() -> None:
    cached = Cached()
    # Down to the mark; then 100 >> 4 pages from the tail, freed last one first: 5, 4 and 5, ... 0
    # to 3.  Then 94 >> 4: 10, 9, 8 and 9, 7, 6 and 7; of them four are wanted.
    assert cached.take(150, cache_first=True) == [
        *range(100, 240),
        *(4, 5, 0, 1, 2, 3),
        *(10, 6, 7, 8),
    ]
    assert cached.files.cached() == set(range(11, 100))
    assert (cached.free, cached.control["cache_first_pages"]) == (17, 11)
    assert (cached.control["kswapd_wanted"], cached.control["direct_pages"]) == (0, 0)


def test_without_the_flag_it_wakes_kswapd_and_reclaims_directly() -> None:
    cached = Cached()
    # Down to low, then to min; direct reclaim frees 1, 3, 6, 11 and 19 pages: 0 to 31, 32 to 39.
    assert cached.take(150, cache_first=False) == [*range(100, 248), 32, 33]
    assert cached.files.cached() == set(range(40, 100))
    assert (cached.free, cached.control["cache_first_pages"]) == (46, 0)
    assert (cached.control["kswapd_wanted"], cached.control["direct_pages"]) == (1, 40)


def test_above_low_the_flag_changes_nothing() -> None:
    taken = []
    for cache_first in (False, True):
        cached = Cached()
        taken.append(cached.take(140, cache_first=cache_first))
        assert cached.files.cached() == set(range(100))
        assert cached.control["scanned_pages"] == 0
    assert taken[0] == taken[1] == list(range(100, 240))


def test_far_below_low_every_page_asks_again_and_then_takes_the_slow_path() -> None:
    cached = Cached()
    cached.mm.zones[0]["watermark_low"] = 200
    # Each of the three frees 1/16 first: 0 to 5, 6 to 10, 11 to 15; the zone stays below 200.  Then
    # a page comes from above the min mark: 4, of 4 and 5; 10, which is alone; and 5 again, before
    # 11, which is likely to merge and went to the tail.
    assert cached.take(3, cache_first=True) == [4, 10, 5]
    assert cached.control["cache_first_pages"] == 16
    assert (cached.free, cached.control["kswapd_wanted"]) == (156 + 16 - 3, 1)


def test_what_is_mapped_or_dirty_stays_and_so_does_the_least() -> None:
    cached = Cached(0)
    cached.files.read(0, 0, 4, mapped=True)
    cached.files.write(0, 10, 4)
    cached.files.read(0, 20, 12)
    cached.control["min_unmapped_pages"] = 4
    taken = cached.take(256, cache_first=True)
    # 12 can be reclaimed, until 4 are left; then slow: to min, and directly, which may unmap.
    assert cached.control["cache_first_pages"] == 8
    assert cached.files.dirty() == {10, 11, 12, 13}
    assert len(taken) == 256 - 8 - int(cached.files.guest.counts()[CACHE])


def test_unmapped_page_control_frees_an_eighth_beyond_16_times_the_least() -> None:
    cached = Cached()
    cached.control["min_unmapped_pages"] = 6
    assert balance_unmapped(cached.mm, cached.files.kernel) == 0  # Off by default.
    BalloonCacheFirst(unmapped_page_control=True).start(cached.mm, cached.files.kernel)
    # 100 are more than 96: (100 - 6) >> 3 = 11 are wanted; 6 come at priority 4, 11 at 3.
    assert balance_unmapped(cached.mm, cached.files.kernel) == 6 + 11
    assert cached.files.cached() == set(range(17, 100))
    assert balance_unmapped(cached.mm, cached.files.kernel) == 0
    assert cached.control["unmapped_control_pages"] == 17


@pytest.mark.parametrize(("switched_on", "woken"), [(False, 0), (True, 1)])
def test_an_allocation_wakes_kswapd_for_unmapped_page_control(
    switched_on: bool, woken: int
) -> None:
    cached = Cached()
    BalloonCacheFirst(unmapped_page_control=switched_on).start(cached.mm, cached.files.kernel)
    alloc(cached.mm, 0, 0, MOVABLE)
    assert cached.control["kswapd_wanted"] == woken


def test_the_driver_looks_at_its_configuration_whenever_it_fills() -> None:
    cached = Cached()
    config = np.zeros(1, BALLOON_CONFIG)
    balloon = Balloon(cached.mm, cached.state, config, deflate_on_oom=False, hinted=True)
    balloon.enqueue(balloon.take(140))
    assert cached.state[0]["hinted_fills"] == 0
    config[0]["reclaim_cache_first"] = 1
    balloon.enqueue(balloon.take(5))
    assert (cached.state[0]["hinted_fills"], cached.control["cache_first_pages"]) == (1, 6)
    config[0]["reclaim_cache_first"] = 0
    balloon.enqueue(balloon.take(5))
    assert cached.control["cache_first_pages"] == 6
    # A driver without the feature does not: the word is another's.
    config[0]["free_page_hint_cmd_id"] = 0x80000000
    without = Balloon(cached.mm, cached.state, config, deflate_on_oom=False)
    without.take(1)
    assert cached.state[0]["hinted_fills"] == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "map", "write", "inflate", "first", "deflate", "alloc", "free"]),
        st.integers(0, 199),
    ),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_no_page_is_lost_and_nothing_mapped_or_dirty_is_taken(
    steps: list[tuple[str, int]],
) -> None:
    zones = (ZoneOf(pages=48, name="DMA32", watermark_min=3, watermark_low=6),)
    guest = Guest(*zones, ZoneOf(pages=80, watermark_min=5, watermark_low=10), files=(200,))
    guest.set_pcp(batch=1, high=16)
    files = Files(guest)
    mm, state = files.mm, np.zeros(1, BALLOON_STATE)
    state[0]["top"] = NOTHING
    inside: list[int] = []
    held: list[int] = []
    for step, number in steps:
        if step in ("read", "map"):
            files.read(0, number, min(9, 200 - number), mapped=step == "map")
        elif step == "write":
            files.write(0, number, min(9, 200 - number))
        elif step in ("inflate", "first"):
            before = _kept(mm)
            pfns = np.zeros(number % 30 + 1, PFN)
            got = take_pages(mm, files.kernel, state, pfns, len(pfns), step == "first")
            enqueue_pages(mm, files.kernel, state, pfns, got)
            inside += [int(pfn) for pfn in pfns[:got]]
            if step == "first" and mm.cache.control[0]["direct_pages"] == 0:
                assert before <= _kept(mm)
        elif step == "deflate" and inside:
            gone, inside = inside[: number + 1], inside[number + 1 :]
            state[0]["pages"] -= len(gone)
            state[0]["between"] += len(gone)
            release_pages(mm, files.kernel, state, np.array(gone, PFN), len(gone))
        elif step == "alloc":
            pfn = int(alloc(mm, 0, 0, MOVABLE))
            held += [pfn] if pfn != NO_PAGE else []
        elif step == "free" and held:
            free(mm, 0, held.pop(number % len(held)), 0)
        counts = guest.counts()
        assert counts[BALLOON] == len(inside)
    assert files.violations() == 0


def _kept(mm: Any) -> set[int]:
    """Slots that are mapped or hold what is not on the disk."""
    slots, image = mm.cache.slots, mm.cache.image
    mapped = slots["flags"] & SLOT_MAPPED != 0
    return set(np.flatnonzero(mapped | (slots["version"] != image["version"])).tolist())
