"""What aeration and page_hinting have in common, on both."""

from collections.abc import Callable

import pytest

from emulator.errors import ConfigError
from emulator.guest.hinting.mechanisms.aeration import Aeration
from emulator.guest.hinting.mechanisms.page_hinting import PageHinting
from emulator.guest.hinting.registry import load_mechanism
from emulator.guest.mm.check_kernels import rebuild_free_lists
from emulator.guest.mm.layout import MOVABLE, RECLAIMABLE, UNMOVABLE
from tests.support.allocator_kernels import move
from tests.support.boundary import BLOCK, Worker
from tests.support.guest import ZoneOf

Make = Callable[..., Aeration | PageHinting]
both = pytest.mark.parametrize("make", [Aeration, PageHinting])


@both
def test_start_up_requests_every_zone_and_waits_a_tenth_of_a_second(make: Make) -> None:
    worker = Worker(make(), ZoneOf(pages=BLOCK, name="DMA32"), ZoneOf(pages=2 * BLOCK))
    worker.free(worker.take())
    assert worker.refcnt() == 0  # Frees are not listened to yet.
    assert worker.waits(5.0) == 5.1
    assert worker.flags(0) == worker.flags(1) == (True, False)
    assert worker.refcnt() == 2
    assert worker.mm.kernel[0]["doorbell"] == 1
    assert worker.waits(5.0999) == 5.1
    assert worker.report_all(5.1) == [[(0, 10)], [(2048, 10), (1024, 10)]]
    assert worker.flags(0) == worker.flags(1) == (False, False)
    assert worker.refcnt() == 0
    assert worker.waits(9.0) is None


@both
def test_walk_goes_from_the_boundary_towards_the_head(make: Make) -> None:
    worker = Worker(make(capacity=2))
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(3072, 10), (2048, 10)]
    assert worker.list_of() == [0, 1024]
    worker.cycle.drain(True, 0.2)
    # Put back just above the boundary, one after the other, and the next two pulled.
    assert worker.list_of() == [-2048, -3072]
    assert worker.boundary() == 2048
    assert worker.flags() == (True, True)
    assert worker.pulled(0.2) == [(1024, 10), (0, 10)]
    worker.cycle.drain(True, 0.3)
    assert worker.list_of() == [-1, -1024, -2048, -3072]
    assert worker.boundary() == 0
    assert worker.flags() == (False, False)
    assert worker.waits(0.3) is None
    assert worker.counted() == 4
    worker.check()


@both
def test_orders_and_types_descend(make: Make) -> None:
    worker = Worker(make(capacity=16), blocks=6)
    taken = [worker.take() for _ in range(6)]
    for index, migratetype in enumerate((UNMOVABLE, MOVABLE, RECLAIMABLE)):
        worker.free(taken[index], 10, migratetype)
        worker.free(taken[index + 3], 9, migratetype)
        worker.free(taken[index + 3] + 512, 8, migratetype)  # Too small.
    worker.waits(0.0)
    batch = worker.pulled(0.1)
    assert [order for _, order in batch] == [10, 10, 10, 9, 9, 9]
    assert [pfn for pfn, _ in batch] == [2048, 1024, 0, 5120, 4096, 3072]
    worker.cycle.drain(True, 0.1)
    # Back to the lists they came from, whatever their pageblocks say.
    for index, migratetype in enumerate((UNMOVABLE, MOVABLE, RECLAIMABLE)):
        assert worker.list_of(10, migratetype) == [-(taken[index] or 1)]
        assert worker.list_of(9, migratetype) == [-taken[index + 3]]
    worker.check()


@both
def test_high_water_counts_raw_blocks_of_one_order(make: Make) -> None:
    worker = Worker(make(high_water=3), blocks=5)
    worker.waits(0.0)
    worker.report_all(0.1)
    taken = [worker.take() for _ in range(4)]
    worker.free(taken[0], 9, now_s=1.0)  # Of another order.
    worker.free(taken[1], now_s=1.1)
    worker.free(taken[2], now_s=1.2)
    assert worker.refcnt() == 0
    assert worker.waits(1.2) is None
    worker.mm.kernel[0]["doorbell"] = 0
    worker.free(taken[3], now_s=1.3)
    assert worker.flags() == (True, False)
    assert worker.mm.kernel[0]["doorbell"] == 1
    assert worker.waits(1.3) == 1.4
    # What lay below the mark goes, too, once there is work.
    (batch,) = worker.report_all(1.4)
    assert sorted(batch) == [(0, 9), (1024, 10), (2048, 10), (3072, 10)]


@both
def test_below_high_water_stays_for_good(make: Make) -> None:
    """A known flaw: 31 blocks an order, in each zone, with the mark of the source."""
    worker = Worker(make(), blocks=40)
    worker.waits(0.0)
    assert [len(batch) for batch in worker.report_all(0.1)] == [32, 8]
    taken = [worker.take() for _ in range(40)]
    for pfn in taken[:31]:
        worker.free(pfn, now_s=1.0)
    assert worker.waits(1000.0) is None
    assert worker.counted() == 0
    worker.free(taken[31], now_s=1000.0)
    assert sum(map(len, worker.report_all(1000.1))) == 32


@both
def test_warm_blocks_first_where_some_are_marked(make: Make) -> None:
    """A known flaw: the boundary is forgotten in between, so the last entry is a marked one."""
    worker = Worker(make(high_water=3, capacity=2))
    worker.waits(0.0)
    worker.report_all(0.1)
    for pfn in [worker.take() for _ in range(3)]:
        worker.free(pfn, now_s=1.0)
    assert worker.list_of() == [2048, 1024, 0, -3072]
    assert worker.pulled(1.1) == [(2048, 10), (1024, 10)]  # From the head: freed last.
    worker.cycle.drain(True, 1.1)
    # The end of the list is the boundary anew; 0 was the only raw block left, and is in flight.
    assert worker.list_of() == [-3072, -1024, -2048]
    assert worker.pulled(1.1) == [(0, 10)]
    worker.cycle.drain(True, 1.1)
    assert worker.list_of() == [-1, -3072, -1024, -2048]
    worker.check()


@both
def test_tail_is_the_boundary_while_active(make: Make) -> None:
    worker = Worker(make(capacity=2), blocks=6)
    for migratetype in (UNMOVABLE, RECLAIMABLE):
        worker.free(worker.take(), 10, migratetype)  # 0 and 1024, the last to be pulled
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(1024, 10), (5120, 10)]  # RECLAIMABLE before MOVABLE.
    worker.cycle.drain(True, 0.1)
    assert worker.list_of() == [2048, -5120]
    assert worker.boundary() == 5120
    move(worker.mm, 0, 0, 10, MOVABLE)
    assert worker.list_of() == [2048, 0, -5120]  # Not behind what is marked.
    worker.cycle.drain(True, 0.1)
    assert worker.pulled(0.1) == [(0, 10), (2048, 10)]
    worker.cycle.drain(True, 0.1)
    assert worker.list_of() == [-2048, -1, -3072, -4096, -5120]
    worker.check()


@both
def test_tail_is_the_end_when_not_active_and_looked_at_first(make: Make) -> None:
    worker = Worker(make(high_water=1), blocks=4)
    worker.waits(0.0)
    worker.report_all(0.1)
    worker.free(worker.take(), 10, UNMOVABLE, now_s=1.0)
    move(worker.mm, 0, 0, 10, MOVABLE)
    assert worker.list_of() == [-1024, -2048, -3072, 0]
    assert worker.report_all(1.1) == [[(0, 10)]]


@both
def test_moved_block_is_raw(make: Make) -> None:
    worker = Worker(make())
    worker.waits(0.0)
    worker.report_all(0.1)
    move(worker.mm, 0, 1024, 10, UNMOVABLE)
    assert worker.list_of() == [-1, -2048, -3072]
    assert worker.list_of(10, UNMOVABLE) == [1024]
    worker.check()


@both
def test_boundary_passes_on_when_its_block_is_taken(make: Make) -> None:
    worker = Worker(make(capacity=2))
    worker.waits(0.0)
    worker.pulled(0.1)
    worker.cycle.drain(True, 0.1)
    assert (worker.list_of(), worker.boundary()) == ([-2048, -3072], 2048)
    assert worker.take() == 2048
    assert (worker.list_of(), worker.boundary()) == ([-3072], 3072)
    assert worker.take() == 3072
    assert (worker.list_of(), worker.boundary()) == ([], None)
    assert worker.counted() == 0
    worker.cycle.drain(True, 0.2)
    assert worker.list_of() == [-1, -1024]
    worker.check()


@both
def test_worker_takes_the_last_page(make: Make) -> None:
    """A known flaw, and its repair."""
    zone = ZoneOf(pages=4 * BLOCK, watermark_min=2 * BLOCK, watermark_low=2 * BLOCK)
    worker = Worker(make(), zone)
    worker.waits(0.0)
    assert len(worker.pulled(0.1)) == 4
    assert worker.mm.zones[0]["free_pages"] == 0
    repaired = Worker(make(keep_watermark=True), zone)
    repaired.waits(0.0)
    assert repaired.pulled(0.1) == [(3072, 10)]
    assert repaired.mm.zones[0]["free_pages"] == 3 * BLOCK
    repaired.cycle.drain(True, 0.1)
    assert repaired.waits(0.1) is None
    repaired.check()


@both
def test_worker_goes_on_while_frees_ask(make: Make) -> None:
    """A known flaw: the delay is only from the first request to the start."""
    worker = Worker(make(high_water=1, capacity=1), blocks=2)
    worker.waits(0.0)
    worker.report_all(0.1)
    worker.free(worker.take(), now_s=1.0)
    for _ in range(20):
        assert len(worker.pulled(1.1)) == 1
        worker.free(worker.take(), now_s=1.1)
        worker.cycle.drain(True, 1.1)
    assert [len(batch) for batch in worker.report_all(1.1)] == [1]
    assert worker.counted() == 2


@both
def test_failed_report_leaves_blocks_raw_and_drops_the_request(make: Make) -> None:
    worker = Worker(make(capacity=2, high_water=4))
    worker.waits(0.0)
    assert worker.pulled(0.1) == [(3072, 10), (2048, 10)]
    worker.cycle.drain(False, 0.1)
    assert sorted(worker.list_of()) == [0, 1024, 2048, 3072]
    assert worker.flags() == (False, False)
    assert worker.waits(0.1) is None
    assert worker.refcnt() == 0
    worker.check()
    worker.free(worker.take(), now_s=2.0)
    assert sum(map(len, worker.report_all(2.1))) == 4


@both
@pytest.mark.parametrize("references", [-1, 1])
def test_dead_vcpu_leaves_no_worker_behind(make: Make, references: int) -> None:
    """It set the flag without the reference, or took the reference of a flag that is gone."""
    worker = Worker(make())
    worker.waits(0.0)
    worker.report_all(0.1)
    worker.mm.kernel[0]["virtual_now_ns"] = 10**9
    rebuild_free_lists(worker.mm, 0)
    worker.control["refcnt"] += references
    assert worker.waits(1.0) == 1.1
    assert sum(map(len, worker.report_all(1.1))) == 4
    assert worker.refcnt() == 0
    assert worker.waits(9.0) is None


@both
def test_lists_made_anew_during_a_report(make: Make) -> None:
    worker = Worker(make(capacity=2), blocks=5)
    worker.waits(0.0)
    worker.pulled(0.1)
    worker.cycle.drain(True, 0.1)
    assert worker.boundary() == 3072
    rebuild_free_lists(worker.mm, 0)
    assert worker.boundary() is None
    assert worker.list_of() == [0, 3072, 4096]
    worker.check()
    worker.cycle.drain(True, 0.2)
    assert worker.list_of() == [0, -1024, -2048]
    assert worker.boundary() == 1024
    assert worker.report_all(0.2) == [[(4096, 10), (3072, 10)], [(0, 10)]]
    assert worker.counted() == 5
    assert worker.waits(9.0) is None  # The start that the death asked for finds nothing.
    assert worker.refcnt() == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"order": 11}, "order: 11 is not one of 0 to 10"),
        ({"delay": "-1s"}, "delay: "),
        ({"capacity": 0}, "capacity: 0 is not one of 1 to 1024"),
        ({"high_water": 0}, "high_water: 0 is not one of 1 to 1048576"),
        ({"low_water": 1}, "low_water: unknown key"),
    ],
)
@pytest.mark.parametrize("name", ["aeration", "page_hinting"])
def test_bad_parameter(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^mechanism.{message}"):
        load_mechanism(name, parameters, where="mechanism")


@both
def test_found_by_name(make: Make) -> None:
    mechanism = load_mechanism(make().name, {"delay": "50ms", "high_water": 8}, where="mechanism")
    assert isinstance(mechanism, Aeration | PageHinting)
    assert mechanism == make(delay_s=0.05, high_water=8)
