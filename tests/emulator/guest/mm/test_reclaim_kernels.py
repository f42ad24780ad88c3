"""Reclaim: second chances, batches, priorities and watermarks, worked out by hand."""

import numpy as np
import pytest

from emulator.guest.mm.layout import ALLOCATED, BUDDY, CACHE, MOVABLE, NO_PAGE, PCP
from emulator.guest.mm.reclaim_kernels import any_zone_balanced, kswapd_pass, lower_boost
from tests.support import cache_kernels
from tests.support.allocator_kernels import alloc, free
from tests.support.files import Files, guest_with_files


def filled(count: int, *, pages: int = 1024) -> Files:
    """`count` pages of one file, read once each, page 0 first (so at the tail)."""
    files = guest_with_files(1024, pages=pages, high=4000)
    files.control["read_ahead_pages"] = 1
    for index in range(count):
        assert files.read(0, index) == 1
    return files


def test_pages_read_once_are_freed_from_the_tail() -> None:
    files = filled(10)
    assert cache_kernels.inactive(files.mm, 0, 4, True) == (4, 4)
    assert files.inactive == [9, 8, 7, 6, 5, 4]
    assert files.guest.counts()[CACHE] == 6
    assert cache_kernels.inactive(files.mm, 0, 32, True) == (6, 6)
    assert files.guest.counts()[ALLOCATED] == 0


def test_kswapd_frees_to_the_zone_and_a_vcpu_to_its_lists() -> None:
    files = filled(10)
    listed = files.guest.counts()[PCP]
    cache_kernels.inactive(files.mm, 0, 4, True)
    assert files.guest.counts()[PCP] == listed + 4
    free_pages = files.guest.counts()[BUDDY]
    cache_kernels.inactive(files.mm, files.kernel, 4, True)
    assert files.guest.counts()[BUDDY] == free_pages + 4


def test_a_mapped_page_gets_a_second_chance_and_then_a_place_among_the_active() -> None:
    files = filled(0)
    for index in (5, 6, 7):
        files.read(0, index, mapped=True)
    assert cache_kernels.inactive(files.mm, 0, 3, True) == (0, 3)
    assert files.inactive == [7, 6, 5]  # Kept, each at the head: the same order again.
    files.read(0, 6, mapped=True)
    assert cache_kernels.inactive(files.mm, 0, 3, True) == (2, 3)
    assert (files.inactive, files.active) == ([], [6])
    assert (files.control["unmapped_pages"], files.control["mapped_pages"]) == (2, 1)
    files.guest.counts()


def test_without_unmapping_mapped_pages_stay() -> None:
    files = filled(2)
    files.read(0, 5, mapped=True)
    files.unmap()
    files.read(0, 6, mapped=True)
    files.mm.cache.slots["flags"][6] &= ~np.uint32(0x08)
    assert cache_kernels.inactive(files.mm, 0, 4, False) == (3, 4)
    assert files.cached() == {6}


def test_dirty_pages_are_activated_and_the_flusher_is_woken_if_all_were_dirty() -> None:
    files = filled(1)
    files.write(0, 5)
    assert cache_kernels.inactive(files.mm, 0, 2, True) == (1, 2)
    assert (files.active, files.control["flush_wanted"]) == ([5], 0)
    files.write(0, 6)
    assert cache_kernels.inactive(files.mm, 0, 2, True) == (0, 1)
    assert (files.active, files.control["flush_wanted"]) == ([6, 5], 1)


def test_the_active_tail_goes_to_the_inactive_head() -> None:
    files = filled(6)
    for index in (3, 1, 5):
        files.read(0, index)
    assert (files.active, files.inactive) == ([5, 1, 3], [4, 2, 0])
    cache_kernels.active(files.mm, 0, 2, True)
    assert (files.active, files.inactive) == ([5], [1, 3, 4, 2, 0])
    assert files.control["active_pages"] == 1
    files.guest.counts()


@pytest.mark.parametrize(
    ("inactive", "active", "low"),
    [
        (10, 10, False),
        (10, 11, True),
        (1 << 17, (1 << 18) - 1, False),  # 1 GiB less one page of 1.5 GiB: sqrt(10) = 3 times.
        (1 << 16, 3 << 16, False),
        (1 << 16, (3 << 16) + 1, True),
        (1 << 18, 9 << 18, False),  # 10 GiB: 10 times.
    ],
)
def test_inactive_is_low(inactive: int, active: int, low: bool) -> None:
    assert cache_kernels.is_low(inactive, active) == low


def test_a_pass_looks_at_a_fraction_of_the_lists_32_at_a_time() -> None:
    files = filled(640)
    assert cache_kernels.lists(files.mm, 0, 12, 100, True) == (0, 0)
    assert cache_kernels.lists(files.mm, 0, 4, 100, True) == (40, 40)
    assert cache_kernels.lists(files.mm, 0, 0, 100, True) == (128, 128)  # Enough after 4 batches.
    assert cache_kernels.lists(files.mm, 0, 0, 1000, True) == (472, 472)


def test_a_pass_deactivates_while_the_inactive_list_is_low() -> None:
    files = filled(96)
    for index in range(64):
        files.read(0, index)
    assert (len(files.active), len(files.inactive)) == (64, 32)
    # 48 and 16 at priority 1: 16 of 32 are freed, then 32 of the active tail come.
    assert cache_kernels.lists(files.mm, 0, 1, 1000, True) == (16, 16)
    assert (len(files.active), len(files.inactive)) == (32, 48)
    assert files.inactive[:2] == [31, 30]
    # Not low any more: 24 are looked at, the active list stays.
    assert cache_kernels.lists(files.mm, 0, 1, 1000, True) == (24, 24)
    assert (len(files.active), len(files.inactive)) == (32, 24)


def test_direct_reclaim_frees_32_pages() -> None:
    files = filled(640)
    assert cache_kernels.direct(files.mm, 0)
    # Priority 9 is the first to look at any: 1, then 2, 4, 9 and 19 of what is left, makes 35.
    assert files.control["direct_pages"] == 1 + 2 + 4 + 9 + 19
    assert files.guest.counts()[CACHE] == 640 - 35


def test_direct_reclaim_takes_active_pages_if_there_are_no_others() -> None:
    files = filled(4)
    for index in range(4):
        files.read(0, index)
    assert files.inactive == []
    # One is deactivated at priority 2, one at 1; at 0, when the lists are even, these are freed.
    assert cache_kernels.direct(files.mm, 0)
    assert (len(files.active), len(files.inactive)) == (2, 0)
    assert cache_kernels.direct(files.mm, 0)
    assert (len(files.active), len(files.inactive)) == (1, 0)
    # The last one is deactivated too late, and freed in the second round.
    assert cache_kernels.direct(files.mm, 0)
    assert files.guest.counts()[CACHE] == 0
    assert not cache_kernels.direct(files.mm, 0)


def test_direct_reclaim_does_not_drop_what_is_dirty() -> None:
    files = filled(0)
    files.write(0, 0, 20)
    assert not cache_kernels.direct(files.mm, 0)
    assert files.control["flush_wanted"] == 1
    files.write_back()
    assert cache_kernels.direct(files.mm, 0)
    assert files.read(0, 0, 20) == 20
    assert files.violations() == 0


def test_an_allocation_below_min_reclaims() -> None:
    files = filled(900)
    files.mm.zones["watermark_min"] = files.mm.zones["watermark_low"] = 100
    files.mm.zones["watermark_high"] = 200
    blocks = [alloc(files.mm, 0, 0, MOVABLE) for _ in range(600)]
    assert NO_PAGE not in blocks
    counts = files.guest.counts()
    assert counts[ALLOCATED] == 600
    assert counts[BUDDY] >= 99
    assert files.control["direct_pages"] > 500
    assert files.control["kswapd_wanted"] == 1
    assert files.mm.actors[0]["failed_allocations"] == 0
    for pfn in blocks:
        free(files.mm, 0, pfn, 0)


def test_node_reclaim_leaves_min_unmapped_pages_and_what_is_mapped() -> None:
    files = filled(160)
    files.control["min_unmapped_pages"] = 100
    assert cache_kernels.node(files.mm, 0, 0)
    # Priority 4 looks at 10, which is at least one page: enough.
    assert files.control["node_pages"] == 10
    assert cache_kernels.node(files.mm, 0, 5)
    # 32 pages: 9 at priority 4, 17 at 3 (32 wanted of 141: 141 >> 3), then 31 at 2.
    assert files.control["node_pages"] == 10 + 9 + 17 + 31
    assert files.guest.counts()[CACHE] == 93
    assert not cache_kernels.node(files.mm, 0, 0)  # 93 are no more than 100.


def test_node_reclaim_counts_neither_mapped_nor_dirty_pages() -> None:
    files = filled(60)
    files.control["min_unmapped_pages"] = 30
    files.write(0, 100, 40)
    for index in range(200, 240):
        files.read(0, index, mapped=True)
    assert cache_kernels.node(files.mm, 0, 0)
    files.control["min_unmapped_pages"] = files.control["node_pages"].item() * -1 + 60
    assert not cache_kernels.node(files.mm, 0, 0)
    assert files.control["mapped_pages"] == 40


@pytest.mark.parametrize("mode", [0, 1])
def test_an_allocation_below_low_reclaims_in_the_node_if_that_is_on(mode: int) -> None:
    files = filled(900)
    files.control["node_reclaim"] = mode
    files.control["min_unmapped_pages"] = 10
    while files.guest.pcp()["count"] > 0:
        alloc(files.mm, 0, 0, MOVABLE)
    files.mm.zones["watermark_low"] = 400
    assert alloc(files.mm, 0, 0, MOVABLE) != NO_PAGE
    assert (files.control["node_pages"] > 0) == (mode == 1)
    assert files.control["kswapd_wanted"] == 1 - mode


def test_kswapd_knows_when_a_zone_is_balanced() -> None:
    files = filled(500)
    zone = files.mm.zones[0]
    zone["watermark_high"] = zone["free_pages"] - 1
    assert any_zone_balanced(files.mm)
    zone["watermark_boost"] = 1
    assert not any_zone_balanced(files.mm)
    lower_boost(files.mm, 0, files.kernel, 5)
    assert zone["watermark_boost"] == 0
    assert any_zone_balanced(files.mm)


def test_kswapd_s_pass_aims_at_the_high_watermark() -> None:
    files = filled(640)
    files.mm.zones["watermark_high"] = 50
    assert kswapd_pass(files.mm, files.kernel, 5) == (20, False)
    assert kswapd_pass(files.mm, files.kernel, 1) == (64, True)  # 50 are wanted: two batches.
    assert files.control["kswapd_pages"] == 84


def test_a_boost_waits_for_kswapd() -> None:
    files = filled(100)
    while files.guest.pcp()["count"] > 0:
        alloc(files.mm, 0, 0, MOVABLE)
    files.mm.zones["watermark_boost"] = 7
    files.control["kswapd_wanted"] = 0
    alloc(files.mm, 0, 0, MOVABLE)
    assert (files.mm.zones[0]["watermark_boost"], files.control["kswapd_wanted"]) == (7, 1)
