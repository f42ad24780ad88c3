"""Page hinting, version 2: what differs from aeration, step by step on hand-checked lists."""

from emulator.guest.hinting.cycle import Report
from emulator.guest.hinting.mechanisms.page_hinting import HINTED_PAGES, PageHinting
from emulator.guest.hinting.task import segments_of
from emulator.guest.mm.layout import ZONE
from tests.support.boundary import BLOCK, Worker
from tests.support.guest import ZoneOf


def test_defaults_are_the_thresholds_of_version_1() -> None:
    hinting = PageHinting()
    assert (hinting.order, hinting.high_water, hinting.capacity) == (None, 32, 32)
    assert hinting.delay_s == 0.1  # HZ / 10
    worker = Worker(hinting, ZoneOf(pages=BLOCK))
    assert worker.control["order"] == 9  # PAGE_HINTING_MIN_ORDER is pageblock_order.


def test_statistics_lie_apart_from_the_zone_and_its_flags() -> None:
    """On cache lines that nobody reads who frees a small block."""
    worker = Worker(PageHinting(), ZoneOf(pages=BLOCK), ZoneOf(pages=BLOCK))
    assert worker.hooks.hinted_pages.dtype == HINTED_PAGES
    assert HINTED_PAGES.itemsize % 64 == 0
    assert not {"nr_hinted", "nr_free_aerated"} & set(worker.hooks.zones.dtype.names)
    assert not {"nr_hinted", "nr_free_aerated"} & set(ZONE.names or ())


def test_boundaries_are_set_up_before_the_first_fill() -> None:
    worker = Worker(PageHinting(capacity=2))
    worker.waits(0.0)
    worker.pulled(0.1)
    assert worker.flags() == (True, True)
    assert worker.boundary() is None


def test_scatterlist_goes_to_the_ring_unchanged() -> None:
    """One array: filled as blocks are pulled, reported, drained, and filled again."""
    worker = Worker(PageHinting(capacity=3))
    worker.waits(0.0)
    first = worker.cycle.step(0.1)
    assert isinstance(first, Report)
    assert first.batch["pfn"].tolist() == [3072, 2048, 1024]
    segments = segments_of(first.batch)
    assert segments["addr"].tolist() == [3072 << 12, 2048 << 12, 1024 << 12]
    assert segments["len"].tolist() == [4 << 20] * 3
    worker.cycle.drain(True, 0.1)
    second = worker.cycle.step(0.1)
    assert isinstance(second, Report)
    assert second.batch["pfn"].tolist() == [0]
    assert second.batch.base is first.batch.base


def test_worker_holds_no_reference() -> None:
    worker = Worker(PageHinting(capacity=3), ZoneOf(pages=4 * BLOCK), ZoneOf(pages=4 * BLOCK))
    worker.waits(0.0)
    assert worker.refcnt() == 2
    worker.pulled(0.1)
    assert worker.refcnt() == 2
    worker.cycle.drain(True, 0.1)  # Zone 0 is exhausted by the fill that follows.
    assert worker.refcnt() == 1
    worker.report_all(0.1)
    assert worker.refcnt() == 0


def test_request_during_the_last_report_schedules_a_start_that_finds_nothing() -> None:
    worker = Worker(PageHinting(high_water=2, capacity=4))
    taken = [worker.take() for _ in range(2)]
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(3072, 10), (2048, 10)]
    assert (worker.flags(), worker.refcnt()) == ((False, True), 0)
    for pfn in taken:
        worker.free(pfn, now_s=0.15)
    assert (worker.flags(), worker.refcnt()) == ((True, True), 1)
    worker.cycle.drain(True, 0.2)
    assert worker.pulled(0.2) == [(0, 10), (1024, 10)]  # At once, by the worker that runs.
    worker.cycle.drain(True, 0.2)
    assert worker.waits(0.2) == 0.25  # And yet it is scheduled.
    assert worker.waits(0.25) is None
    worker.check()


def test_hint_is_lost_on_merge_and_nobody_is_told() -> None:
    worker = Worker(PageHinting(high_water=2, capacity=2), blocks=3)
    taken = [worker.take() for _ in range(3)]
    worker.free(512, 9)  # The upper half of the first block.
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(512, 9)]
    worker.free(0, 9, now_s=0.1)  # Its buddy, while it is in flight: they cannot merge yet.
    worker.free(taken[1], now_s=0.1)
    assert (worker.list_of(9), worker.list_of(10)) == ([0], [1024])
    worker.cycle.drain(True, 0.1)
    # 512 merged with 0: two raw blocks of order 10, the mark, but a put back does not ask.
    assert worker.list_of() == [1024, 0]
    assert (worker.flags(), worker.refcnt()) == ((False, False), 0)
    assert worker.waits(100.0) is None
    worker.free(taken[2], now_s=100.0)
    assert sum(map(len, worker.report_all(100.1))) == 3


def test_hint_is_lost_when_a_buddy_is_freed() -> None:
    worker = Worker(PageHinting(high_water=1), blocks=1)
    worker.take()
    worker.free(512, 9)
    worker.waits(0.0)
    assert worker.report_all(0.1) == [[(512, 9)]]
    assert worker.counted(9) == 1
    worker.free(0, 9, now_s=1.0)
    assert (worker.counted(9), worker.counted(10)) == (0, 0)
    assert worker.report_all(1.1) == [[(0, 10)]]  # Its upper half for the second time.
    assert worker.list_of() == [-1]
