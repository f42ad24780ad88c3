"""idle_age: the cold end, the age limit, blocks in flight on their lists, splits and merges."""

import threading
import time
from typing import Any

import pytest

from devices.memory.jit import interpreted
from emulator.config.scenario import load_scenario
from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.idle_age import MARK_NOT_YOUNG, IdleAge, IdleAgeCycle
from emulator.guest.mm.check_kernels import rebuild_free_lists
from emulator.guest.mm.layout import MOVABLE, NO_PAGE, PAGE_SIZE, TICK_SHIFT, UNMOVABLE
from emulator.observer import NullObserver
from emulator.runner import run
from tests.support.allocator_kernels import alloc, fall_back, free, report, take
from tests.support.guest import Guest, ZoneOf

ORDER = 4
SIZE = 1 << ORDER
AGE_S = 1.0
TICK_S = (1 << TICK_SHIFT) / 1e9


class Aged:
    """A guest of 1024 pages, all in use in blocks of 16, and a cycle of the mechanism."""

    def __init__(self, pages: int = 1024, watermark_min: int = 0, **parameters: Any) -> None:
        parameters = {"capacity": 4, **parameters}
        mechanism = IdleAge(order=ORDER, age_s=AGE_S, interval_s=0.001, **parameters)
        zone = ZoneOf(pages=pages, watermark_min=watermark_min, watermark_low=watermark_min)
        self.guest = Guest(zone, mechanism=mechanism)
        self.mm = self.guest.mm
        self.cycle = IdleAgeCycle(mechanism, self.mm, actor=1)
        self.now_s = 10.0
        self.at(10.0)
        assert isinstance(self.cycle.step(self.now_s), Wait)  # It begins here.
        self.blocks = sorted(self.alloc() for _ in range((pages - watermark_min) // SIZE))
        self.at(20.0)
        assert self.cycle.step(self.now_s) == Wait(None)

    def at(self, now_s: float) -> None:
        self.now_s = now_s
        self.mm.kernel[0]["virtual_now_ns"] = round(now_s * 1e9)

    def alloc(self) -> int:
        return int(alloc(self.mm, 0, ORDER, MOVABLE))

    def free(self, *indices: int) -> list[int]:
        """Free the blocks of these numbers, in this order."""
        for index in indices:
            free(self.mm, 0, self.blocks[index], ORDER)
        return [self.blocks[index] for index in indices]

    def reported(self) -> list[int]:
        """What the cycle puts in flight now."""
        decision = self.cycle.step(self.now_s)
        assert isinstance(decision, Report)
        return [int(pfn) for pfn in decision.batch["pfn"]]

    def idle(self) -> set[int]:
        """Blocks that the host has been told of, as the zone counts them; every invariant holds."""
        self.guest.counts()
        return self.guest.reported()

    def state(self, pfn: int) -> int:
        return int(self.mm.pages[pfn]["mark"])


def test_the_coldest_are_taken_first_and_a_young_one_ends_the_walk() -> None:
    aged = Aged()
    old = aged.free(0, 2, 4)
    aged.at(20.5)
    young = aged.free(6, 8)
    decision = aged.cycle.step(aged.now_s)
    assert isinstance(decision, Wait) and decision.until_s == pytest.approx(21.0)
    aged.at(21.01)
    assert aged.reported() == old
    aged.cycle.drain(True, aged.now_s)
    decision = aged.cycle.step(aged.now_s)
    assert isinstance(decision, Wait) and decision.until_s is not None
    assert 21.5 <= decision.until_s <= 21.5 + 2 * TICK_S
    assert aged.idle() == set(old)
    aged.at(decision.until_s)
    assert aged.reported() == young  # Those that are idle already are passed over.
    aged.cycle.drain(True, aged.now_s)
    assert aged.cycle.step(aged.now_s) == Wait(None)
    assert aged.idle() == {*old, *young}


def test_a_young_block_at_the_cold_end_hides_the_old_ones_behind_it() -> None:
    aged = Aged()
    aged.free(0, 2)
    aged.at(20.9)
    # Its buddy's buddy is free: it goes to the tail, as about to merge.
    aged.free(7, 6, 4)
    aged.at(21.5)
    assert isinstance(aged.cycle.step(aged.now_s), Wait)
    aged.at(22.0)
    assert set(aged.reported()) == {aged.blocks[6], aged.blocks[0], aged.blocks[2], aged.blocks[4]}


def test_a_batch_holds_at_most_capacity_and_a_pass_goes_on_after_it() -> None:
    aged = Aged()
    freed = aged.free(*range(0, 20, 2))
    aged.at(22.0)
    found = []
    while isinstance(decision := aged.cycle.step(aged.now_s), Report):
        assert len(decision.batch) <= 4
        found += [int(pfn) for pfn in decision.batch["pfn"]]
        aged.cycle.drain(True, aged.now_s)
    assert found == freed


def test_the_allocator_passes_over_what_is_in_flight_and_takes_others() -> None:
    aged = Aged()
    old = aged.free(0, 2)
    aged.at(21.5)
    assert aged.reported() == old
    (young,) = aged.free(4)
    assert set(aged.guest.free_list(ORDER, MOVABLE)) == {*old, young}
    assert aged.mm.zones[0]["free_pages"] == 3 * SIZE
    assert aged.alloc() == young
    assert aged.alloc() == NO_PAGE  # In virtual time nobody waits.
    assert int(take(aged.mm, 0, ORDER, UNMOVABLE, 1)) == NO_PAGE
    assert not fall_back(aged.mm, 0, ORDER, UNMOVABLE, False)
    aged.cycle.drain(True, aged.now_s)
    assert aged.idle() == set(old)
    assert {aged.alloc(), aged.alloc()} == set(old)
    assert aged.idle() == set()


@pytest.mark.parametrize("acknowledged", [True, False])
@pytest.mark.parametrize("hint_list", [False, True])
def test_what_is_freed_beside_a_block_in_flight_merges_when_that_comes_back(
    hint_list: bool, acknowledged: bool
) -> None:
    aged = Aged(hint_list=hint_list)
    (old,) = aged.free(2)
    aged.at(21.5)
    aged.free(10)  # The last free pages are never isolated.
    assert aged.reported() == [old]
    (young,) = aged.free(3)
    aged.guest.counts()
    assert aged.mm.pages[young]["order"] == ORDER
    assert aged.state(old) == (0 if hint_list else MARK_NOT_YOUNG)
    aged.cycle.drain(acknowledged, aged.now_s)
    assert aged.idle() == set()  # One part is young: so is the whole.
    assert aged.guest.free_list(ORDER + 1, MOVABLE) == [old]
    assert aged.mm.pages[old]["stamp"] == round(21.5e9) >> TICK_SHIFT


@pytest.mark.parametrize("hint_list", [False, True])
def test_merged_from_idle_parts_alone_a_block_is_idle(hint_list: bool) -> None:
    aged = Aged(hint_list=hint_list)
    (old,) = aged.free(2)
    aged.at(21.5)
    aged.free(10)  # The last free pages are never isolated.
    assert aged.reported() == [old]
    (buddy,) = aged.free(3)
    aged.mm.pages[buddy]["mark"] |= MARK_NOT_YOUNG
    report(aged.mm, 0, buddy)
    aged.cycle.drain(True, aged.now_s)
    assert aged.idle() == {old}
    assert aged.mm.zones[0]["reported_pages"] == 2 * SIZE


def test_freed_into_an_idle_block_makes_the_whole_young() -> None:
    aged = Aged()
    (old,) = aged.free(2)
    aged.at(21.5)
    aged.reported()
    aged.cycle.drain(True, aged.now_s)
    assert aged.idle() == {old}
    aged.free(3)
    assert aged.idle() == set()
    assert aged.guest.free_lists() == {(ORDER + 1, MOVABLE): [old]}


def test_both_halves_of_an_idle_block_are_idle() -> None:
    aged = Aged()
    aged.free(4, 5, 6, 7)
    aged.at(21.5)
    (whole,) = aged.reported()
    aged.cycle.drain(True, aged.now_s)
    assert aged.idle() == {whole}
    assert aged.alloc() == whole
    assert aged.idle() == {whole + SIZE, whole + 2 * SIZE}
    assert aged.mm.zones[0]["reported_pages"] == 3 * SIZE
    aged.at(30.0)
    assert isinstance(aged.cycle.step(aged.now_s), Wait)  # The host need not be told twice.


def test_halves_of_a_young_block_are_young_and_as_old_as_it() -> None:
    aged = Aged()
    aged.free(4, 5)
    aged.at(20.5)
    assert aged.alloc() == aged.blocks[4]
    assert aged.idle() == set()
    aged.at(21.1)
    assert aged.reported() == [aged.blocks[5]]


def test_a_failed_report_leaves_young_blocks_and_is_tried_again_an_age_later() -> None:
    aged = Aged()
    (old,) = aged.free(0)
    aged.at(22.0)
    assert aged.reported() == [old]
    aged.cycle.drain(False, aged.now_s)
    assert aged.state(old) == 0
    assert aged.cycle.step(aged.now_s) == Wait(23.0)
    aged.at(23.0)
    assert aged.reported() == [old]


def test_rebuilding_the_lists_keeps_a_block_in_flight_apart() -> None:
    aged = Aged()
    (old,) = aged.free(2)
    aged.at(21.5)
    assert aged.reported() == [old]
    (buddy,) = aged.free(3)
    assert rebuild_free_lists(aged.mm, 0) == 0
    aged.guest.counts()
    assert aged.state(old) == MARK_NOT_YOUNG
    assert aged.alloc() == buddy
    assert aged.alloc() == NO_PAGE
    aged.cycle.drain(True, aged.now_s)
    assert aged.idle() == {old}


def test_the_hint_list_takes_blocks_off_the_free_lists_but_not_the_last_ones() -> None:
    aged = Aged(pages=1024, watermark_min=256, hint_list=True)
    aged.free(*range(0, 6, 2))
    aged.at(22.0)
    taken = aged.reported()  # What is below the watermark is free, too: the coldest of all.
    free_pages = int(aged.mm.zones[0]["free_pages"])
    assert free_pages - SIZE <= 256 + SIZE < free_pages + len(taken) * SIZE
    assert aged.mm.zones[0]["isolated_pages"] == len(taken) * SIZE
    aged.guest.counts()
    aged.cycle.drain(True, aged.now_s)
    assert set(taken) <= aged.idle()
    assert aged.mm.zones[0]["isolated_pages"] == 0


@pytest.mark.skipif(interpreted(), reason="interpreted kernels run alone: nobody could wake them")
@pytest.mark.parametrize("hint_list", [False, True])
def test_an_allocation_about_to_fail_waits_for_what_is_in_flight(hint_list: bool) -> None:
    aged = Aged(hint_list=hint_list, wait_max_s=10.0)
    (old,) = aged.free(0)
    aged.at(22.0)
    (young,) = aged.free(10)
    assert aged.reported() == [old]
    assert aged.alloc() == young
    aged.mm.kernel[0]["virtual"] = 0
    control, waiter = aged.mm.hooks.control[0], aged.mm.hooks.waiters[0]
    waiter["drains"] = control["drains"] + 1  # Overwritten as it begins to wait.
    got: list[int] = []
    vcpu = threading.Thread(target=lambda: got.append(aged.alloc()))
    vcpu.start()
    deadline = time.monotonic() + 10
    while waiter["drains"] != control["drains"] and time.monotonic() < deadline:
        pass
    aged.cycle.drain(True, aged.now_s)
    vcpu.join(10)
    assert got == [old]
    assert aged.mm.actors[0]["failed_allocations"] == 0


@pytest.mark.skipif(interpreted(), reason="interpreted kernels run alone: nobody could wake them")
def test_the_wait_ends_by_itself_and_nothing_in_flight_is_not_waited_for() -> None:
    aged = Aged(wait_max_s=0.01)
    (old,) = aged.free(0)
    aged.at(22.0)
    assert aged.reported() == [old]
    aged.mm.kernel[0]["virtual"] = 0
    assert aged.alloc() == NO_PAGE
    aged.cycle.drain(True, aged.now_s)
    assert aged.alloc() == old
    assert aged.alloc() == NO_PAGE
    assert aged.mm.actors[0]["failed_allocations"] == 2


@pytest.mark.parametrize("hint_list", ["false", "true"])
def test_under_churn_nothing_in_use_is_discarded(hint_list: str, tmp_path: Any) -> None:
    changes = [
        "guest.memory=128MiB",
        "guest.ram=accounted",
        "run.launcher=virtual",
        "workload.duration=1s",
        "workload.level=0.9",
        "host.discard=64MiB",
        "mechanism.name=idle_age",
        "mechanism.order=4",
        "mechanism.age=1ms",
        "mechanism.interval=1ms",
        f"mechanism.hint_list={hint_list}",
    ]
    scenario = load_scenario("churn", changes)
    summary = run(scenario, output=tmp_path, observer=NullObserver())
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 0
    assert (summary.hinting.returned_bytes or 0) > 1000 * PAGE_SIZE
    assert summary.stranded.in_flight_bytes == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"order": 11}, "order: 11"),
        ({"age_s": -1.0}, "age: -1.0 s"),
        ({"capacity": 0}, "capacity: 0"),
        ({"interval_s": 0.0}, "interval: 0.0 s"),
        ({"wait_max_s": 11.0}, "wait_max: 11.0 s"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdleAge(**parameters)
