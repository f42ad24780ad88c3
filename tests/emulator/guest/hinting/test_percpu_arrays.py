"""Per-CPU arrays of freed pages (N. N. Lal, patch v8 6/7), step by step on hand-checked frames."""

import numpy as np
import pytest

from devices.balloon.layout import PFN
from emulator.guest.balloon.kernels import release_pages, take_pages
from emulator.guest.balloon.layout import BALLOON_STATE
from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.percpu_arrays import EMPTY, PercpuArrays
from emulator.guest.mm.layout import ALLOCATED, ISOLATED, MOVABLE, PAGE_SIZE
from emulator.report.tables import figure_tables
from emulator.summary import lookup
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf
from tests.support.runs import simulate, small

KERNEL = 1024  # Pages that the guest holds from boot: the first that can be had is 1024.


class Lab:
    """A guest with 3072 free pages under this mechanism, and its cycle."""

    def __init__(self, mechanism: PercpuArrays, *, cpus: int = 1, reserved: int = KERNEL) -> None:
        self.mechanism = mechanism
        zone = ZoneOf(pages=3072 + reserved, reserved=reserved)
        self.guest = Guest(zone, cpus=cpus, mechanism=mechanism)
        self.guest.set_pcp(batch=4, high=64)
        self.mm = self.guest.mm
        self.cycle = mechanism.start(self.mm, cpus)

    def take(self, count: int, order: int = 0, cpu: int = 0) -> list[int]:
        return [int(alloc(self.mm, cpu, order, MOVABLE)) for _ in range(count)]

    def free(self, *pfns: int, order: int = 0, cpu: int = 0) -> None:
        for pfn in pfns:
            free(self.mm, cpu, pfn, order)

    def reported(self, now_s: float = 0.0) -> list[tuple[int, int]]:
        """What is reported now: (first page, order), in this order."""
        decision = self.cycle.step(now_s)
        assert isinstance(decision, Report)
        return [(int(block["pfn"]), int(block["order"])) for block in decision.batch]

    def figure(self, name: str) -> int | float | None:
        return self.mechanism.figures(self.mm)[name]

    def entries(self, cpu: int = 0) -> list[tuple[int, int]]:
        size = self.mechanism.entries
        found = self.mm.hooks.captured[cpu * size : (cpu + 1) * size]
        return [(int(e["pfn"]), int(e["order"])) for e in found if e["pfn"] != EMPTY]


def test_defaults_are_those_of_the_patch() -> None:
    assert PercpuArrays().entries == PercpuArrays().capacity == 1000  # MAX_FGPT_ENTRIES
    assert PercpuArrays().order == 0
    assert PercpuArrays(largest_only=True).order == 10
    for entries in (0, 4097):
        with pytest.raises(ValueError, match=f"entries: {entries} is not one of 1 to"):
            PercpuArrays(entries=entries)


def test_below_its_size_an_array_waits_for_ever() -> None:
    lab = Lab(PercpuArrays(entries=8))
    pages = lab.take(7)
    lab.free(*pages)
    assert lab.entries() == [(pfn, 0) for pfn in pages]
    for now_s in (0.0, 1e6):
        assert lab.cycle.step(now_s) == Wait(None)
    assert lab.mm.kernel[0]["doorbell"] == 0
    assert lab.figure("stranded_entries") == 7


def test_what_merged_becomes_one_entry_and_the_array_fills_on() -> None:
    lab = Lab(PercpuArrays(entries=4))
    assert lab.take(5) == [1024, 1025, 1026, 1027, 1028]
    lab.free(1025, 1024, 1026, 1027)
    # The vCPU gave its lists back, and so 1024 and 1025 are one block, whose head is an entry
    # already.  1026 is a free block; 1027 is on no list yet.
    assert lab.entries() == [(1024, 0), (1026, 0), (1027, 0)]
    assert lab.mm.hooks.arrays[0]["index"] == 3
    assert lab.cycle.step(0.0) == Wait(None)
    assert (lab.figure("scans"), lab.figure("stranded_bytes")) == (1, 3 * PAGE_SIZE)


def test_the_search_for_a_head_is_linear() -> None:
    lab = Lab(PercpuArrays(entries=4))
    lab.take(5)
    lab.free(1026, 1024, 1025, 1027)
    # 1026 and 1024 are heads; 1025 lies in the block of 1024, which is the second entry.
    assert lab.entries() == [(1026, 0), (1024, 0), (1027, 0)]
    assert lab.figure("comparisons") == 2


def test_a_page_noted_twice_stays_twice_where_it_is_a_head_both_times() -> None:
    lab = Lab(PercpuArrays(entries=4))
    lab.take(8)
    for _ in range(2):
        lab.free(1026)
        lab.take(1)
    lab.free(1026, 1030)
    assert lab.entries() == [(1026, 0)] * 3 + [(1030, 0)]
    assert lab.mm.hooks.arrays[0]["full"] == 1


def test_a_full_array_is_walked_page_by_page_and_reported_in_one_request() -> None:
    lab = Lab(PercpuArrays(entries=4))
    lab.take(9)
    lab.free(1030, 1024, 1026, 1028)
    assert lab.mm.kernel[0]["doorbell"] == 1
    # The page whose free filled the array went to a list of its vCPU after that was given back.
    assert lab.reported() == [(1030, 0), (1024, 0), (1026, 0)]
    assert lab.guest.counts()[ISOLATED] == 3
    lab.cycle.drain(True, 0.0)
    assert lab.guest.counts()[ISOLATED] == 0
    assert lab.guest.reported() == {1024, 1026, 1030}
    assert lab.guest.free_list(0, MOVABLE)[:3] == [1026, 1024, 1030]  # As frees: the last first.
    assert lab.figure("lock_acquisitions") == 4
    assert lab.figure("fruitless_entries") == 1
    assert (lab.figure("one_page_blocks"), lab.figure("one_page_reports")) == (3, 0)
    assert lab.cycle.step(0.0) == Wait(None)


def test_a_request_may_be_for_a_single_page() -> None:
    lab = Lab(PercpuArrays(entries=2))
    lab.take(5)
    lab.free(1024, 1026)
    assert lab.reported() == [(1024, 0)]
    lab.cycle.drain(True, 0.0)
    assert (lab.figure("one_page_blocks"), lab.figure("one_page_reports")) == (1, 1)


def test_what_the_guests_kernel_frees_is_noted_in_an_array_of_its_own() -> None:
    """Out of the balloon; the kernel, actor 1, has no per-CPU lists to give back."""
    lab = Lab(PercpuArrays(entries=4))
    state, pfns = np.zeros(1, BALLOON_STATE), np.zeros(7, PFN)
    assert take_pages(lab.mm, 1, state, pfns, 7, False) == 7
    odd = pfns[1::2].copy()
    release_pages(lab.mm, 1, state, odd, len(odd))
    assert lab.entries(cpu=1) == [(1029, 0), (1027, 0), (1025, 0)]
    assert (lab.entries(cpu=0), lab.mm.kernel[0]["doorbell"]) == ([], 0)
    release_pages(lab.mm, 1, state, pfns[:1].copy(), 1)
    # The array is full, and 1024 is on no list yet; it is when the array is served.
    assert (lab.mm.hooks.arrays[1]["full"], lab.mm.kernel[0]["doorbell"]) == (1, 1)
    assert lab.reported() == [(1029, 0), (1027, 0), (1024, 1)]
    lab.cycle.drain(True, 0.0)
    assert lab.guest.reported() == {1024, 1027, 1029}


@pytest.mark.parametrize("largest_only", [False, True])
def test_the_reviewers_answer_leaves_only_the_largest_blocks(largest_only: bool) -> None:
    lab = Lab(PercpuArrays(entries=3, largest_only=largest_only))
    [block, _], [large], [page] = lab.take(2, order=4), lab.take(1, order=10), lab.take(1)
    lab.free(block, order=4)
    lab.free(large, order=10)
    lab.free(page)
    assert lab.reported() == ([] if largest_only else [(block, 4)]) + [(large, 10)]


def test_frees_are_ignored_until_the_report_has_returned() -> None:
    lab = Lab(PercpuArrays(entries=2))
    lab.take(12)
    lab.free(1024, 1026)
    lab.free(1028)
    lab.reported()
    lab.free(1030)
    assert (lab.figure("ignored_frees"), lab.figure("ignored_bytes")) == (2, 2 * PAGE_SIZE)
    lab.cycle.drain(True, 0.0)
    lab.free(1032)
    assert lab.entries() == [(1032, 0)]
    assert (lab.figure("captured_frees"), lab.figure("ignored_frees")) == (3, 2)


def test_arrays_are_served_in_the_order_in_which_they_became_ready() -> None:
    lab = Lab(PercpuArrays(entries=2), cpus=3)
    pages = {cpu: lab.take(3, cpu=cpu) for cpu in range(3)}
    for cpu in (2, 0, 1):
        lab.free(pages[cpu][0], pages[cpu][2], cpu=cpu)
    served = []
    for _ in range(3):
        served += lab.reported()
        lab.cycle.drain(True, 0.0)
    assert [pfn for pfn, _ in served] == [pages[cpu][0] for cpu in (2, 0, 1)]
    assert lab.cycle.step(0.0) == Wait(None)


def test_entries_in_use_again_are_not_removed() -> None:
    lab = Lab(PercpuArrays(entries=2))
    lab.take(8)
    lab.free(1024)
    lab.take(1)  # 1024 again, from the vCPU's own list.
    lab.free(1030)
    assert lab.mm.pages[1024]["kind"] == ALLOCATED
    assert lab.mm.hooks.arrays[0]["full"] == 1
    assert lab.cycle.step(7.0) == Wait(7.0)  # Nothing to report: on to the next array, at once.
    assert lab.cycle.step(7.0) == Wait(None)
    assert (lab.figure("fruitless_entries"), lab.figure("stranded_entries")) == (2, 0)


def test_page_frame_0_is_no_entry() -> None:
    lab = Lab(PercpuArrays(entries=2), reserved=0)
    assert lab.take(4) == [0, 1, 2, 3]
    lab.free(0, 2)
    assert lab.entries() == [(2, 0)]  # Packed as if empty: it is never reported.
    assert lab.mm.hooks.arrays[0]["full"] == 0


def test_a_block_that_was_broken_up_would_overrun_the_list() -> None:
    lab = Lab(PercpuArrays(entries=1))
    lab.guest.set_pcp(batch=1, high=64)
    [block, _] = lab.take(2, order=4)
    lab.free(block, order=4)
    assert lab.take(1) == [block]  # The smallest that serves: it leaves blocks of order 0 to 3.
    assert lab.reported() == [(block + 1, 0)]
    assert lab.figure("overruns") == 3
    assert lab.figure("lock_acquisitions") == 5
    lab.cycle.drain(True, 0.0)
    lab.guest.counts()


def test_a_block_in_use_is_walked_over_at_once_and_a_percpu_one_page_by_page() -> None:
    lab = Lab(PercpuArrays(entries=1))
    [block, _] = lab.take(2, order=4)
    lab.free(block, order=4)
    lab.take(1, order=4)
    assert lab.cycle.step(0.0) == Wait(0.0)
    assert lab.figure("lock_acquisitions") == 1
    [block] = lab.take(1, order=3)
    lab.free(block, order=3)
    assert lab.cycle.step(0.0) == Wait(0.0)
    assert lab.figure("lock_acquisitions") == 1 + 8


def test_below_the_min_watermark_nothing_is_isolated() -> None:
    lab = Lab(PercpuArrays(entries=2))
    lab.take(5)
    lab.free(1024, 1026)
    lab.mm.zones[0]["watermark_min"] = 4096
    assert lab.cycle.step(0.0) == Wait(0.0)
    assert lab.figure("isolation_failures") == 1
    lab.guest.counts()


def test_a_failed_report_marks_nothing_and_lets_the_array_go() -> None:
    lab = Lab(PercpuArrays(entries=2))
    lab.take(5)
    lab.free(1024, 1026)
    lab.reported()
    lab.cycle.drain(False, 0.0)
    assert lab.guest.reported() == set()
    assert lab.figure("one_page_blocks") == 0
    assert (lab.guest.counts()[ISOLATED], lab.mm.hooks.arrays[0]["full"]) == (0, 0)


def test_a_whole_guest_is_sound_and_its_figures_are_shown() -> None:
    done = simulate(small("churn", 'mechanism={name="percpu_arrays", entries=16}')).summary
    assert done.oracle.violations == 0
    assert done.hinting.returned_bytes
    own = done.hinting.mechanism
    assert own is not None
    assert own["captured_frees"] + own["ignored_frees"] > 0
    assert lookup(done, "hinting.mechanism.one_page_blocks") == own["one_page_blocks"] > 0
    [table] = [table for table in figure_tables(done) if table.title == "Mechanism"]
    assert [figure.label for figure in table.figures][:3] == [
        "captured frees",
        "ignored frees",
        "ignored",
    ]
