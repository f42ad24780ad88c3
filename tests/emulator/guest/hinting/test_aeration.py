"""Aeration, version 1: what differs from page_hinting, step by step on hand-checked lists."""

from emulator.guest.hinting.mechanisms.aeration import Aeration
from emulator.guest.mm.layout import NO_PAGE
from tests.support.boundary import BLOCK, Worker
from tests.support.guest import ZoneOf


def batch_list(worker: Worker) -> list[int]:
    """The isolated blocks, as they are linked."""
    record = worker.hooks.batch[0]
    if record["first"] == NO_PAGE:
        return []
    found = [int(record["first"])]
    while found[-1] != record["last"]:
        found.append(int(worker.mm.pages[found[-1]]["next"]))
    return found


def test_defaults_are_the_mails_constants() -> None:
    aeration = Aeration()
    assert (aeration.order, aeration.high_water, aeration.capacity) == (None, 32, 32)
    assert aeration.delay_s == 0.1  # HZ / 10
    worker = Worker(aeration, ZoneOf(pages=BLOCK))
    assert worker.control["order"] == 9  # AERATOR_MIN_ORDER is pageblock_order.


def test_worker_holds_a_reference_of_its_own() -> None:
    worker = Worker(Aeration(capacity=3), ZoneOf(pages=4 * BLOCK), ZoneOf(pages=4 * BLOCK))
    worker.waits(0.0)
    assert worker.refcnt() == 2
    worker.pulled(0.1)
    assert worker.refcnt() == 3
    worker.cycle.drain(True, 0.1)  # Zone 0 is exhausted by the fill that follows.
    assert worker.refcnt() == 2
    worker.cycle.drain(True, 0.1)
    worker.pulled(0.1)
    assert worker.flags(0) == (False, False)
    worker.report_all(0.1)
    assert worker.refcnt() == 0


def test_request_during_the_last_report_schedules_nothing() -> None:
    worker = Worker(Aeration(high_water=2, capacity=4))
    taken = [worker.take() for _ in range(2)]
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(3072, 10), (2048, 10)]
    assert (worker.flags(), worker.refcnt()) == ((False, False), 1)
    for pfn in taken:
        worker.free(pfn, now_s=0.1)
    assert (worker.flags(), worker.refcnt()) == ((True, False), 2)
    assert worker.control["due_ns"] == 0
    worker.cycle.drain(True, 0.1)
    assert sum(map(len, worker.report_all(0.1))) == 2  # At once, by the worker that runs.
    assert worker.waits(0.1) is None
    assert worker.hooks.batch[0]["warnings"] == 0


def test_boundaries_are_set_up_when_the_first_batch_is_put_back() -> None:
    """Until then what others put at the tail gets behind marked blocks."""
    worker = Worker(Aeration(capacity=2))
    worker.waits(0.0)
    worker.pulled(0.1)
    assert worker.flags() == (True, False)
    worker.cycle.drain(True, 0.1)
    assert worker.flags() == (True, True)


def test_batch_is_a_list_through_the_pages_and_the_array_made_from_it() -> None:
    worker = Worker(Aeration(capacity=3))
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(3072, 10), (2048, 10), (1024, 10)]
    assert batch_list(worker) == [3072, 2048, 1024]
    worker.cycle.drain(True, 0.1)
    assert batch_list(worker) == [0]  # Filled anew under the same hold of the lock.
    worker.cycle.drain(True, 0.1)
    assert batch_list(worker) == []


def test_merged_block_is_raw_at_the_boundary_and_asks_again() -> None:
    worker = Worker(Aeration(high_water=2, capacity=2), blocks=3)
    taken = [worker.take() for _ in range(3)]
    worker.free(512, 9)  # The upper half of the first block.
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(512, 9)]
    assert worker.flags() == (False, False)
    worker.free(0, 9, now_s=0.1)  # Its buddy, while it is in flight: they cannot merge yet.
    worker.free(taken[1], now_s=0.1)
    assert (worker.list_of(9), worker.list_of(10)) == ([0], [1024])
    assert not worker.flags()[0]  # One raw block of either order.
    worker.cycle.drain(True, 0.1)
    # 512 merged with 0 to the second raw block of order 10, behind 1024: the zone has asked, and
    # the next fill goes up from the boundary.
    assert worker.pulled(0.1) == [(0, 10), (1024, 10)]
    worker.cycle.drain(True, 0.1)
    assert worker.list_of() == [-1024, -1]
    assert worker.waits(0.1) is None
    worker.check()


def test_aerated_mark_is_lost_when_a_buddy_is_freed() -> None:
    worker = Worker(Aeration(high_water=1), blocks=1)
    worker.take()
    worker.free(512, 9)
    worker.waits(0.0)
    assert worker.report_all(0.1) == [[(512, 9)]]
    assert worker.counted(9) == 1
    worker.free(0, 9, now_s=1.0)
    assert (worker.counted(9), worker.counted(10)) == (0, 0)
    assert worker.report_all(1.1) == [[(0, 10)]]  # Its upper half for the second time.
    assert worker.list_of() == [-1]
