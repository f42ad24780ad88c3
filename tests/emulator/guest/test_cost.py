"""What a guest pays in virtual time, held against sums worked out by hand."""

import math

import numpy as np
import pytest

from emulator.config.cost import CostConfig
from emulator.guest.cost import Bill, GuestCosts, expected_wait_s
from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.guest.histogram import BUCKET_MIDDLES, bucket_indices
from emulator.guest.mm.layout import NR_BUCKETS
from emulator.guest.mm.lock_kernels import acquire_zone, release_zone
from tests.support.guest import Guest, ZoneOf

# Each a power of two of microseconds or nanoseconds, so that no two sums look alike.
PRICES = CostConfig(
    exit_s=1e-6,
    flushes=2,
    interruption_s=512e-6,
    host_fault_s=2e-6,
    host_fault_huge_s=64e-6,
    lock_s=1e-9,
    list_move_s=16e-9,
    list_step_s=256e-9,
)


class Discards:
    """How often the host has taken memory away: set by a test."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        return self.count


def guest_of(pages: int = 256, cpus: int = 2, order: int = 0, capacity: int = 32) -> Guest:
    mechanism = PageReporting(order=order, capacity=capacity, delay_s=0)
    return Guest(ZoneOf(pages=pages), cpus=cpus, pageblock_order=4, mechanism=mechanism)


def holds_of(*lengths_ns: int) -> np.ndarray:
    holds = np.zeros(NR_BUCKETS, np.int64)
    np.add.at(holds, bucket_indices(np.array(lengths_ns)), 1)
    return holds


def hold(guest: Guest, actor: int) -> int:
    """Take the zone's lock and release it; what that hold took, ns."""
    before = int(guest.mm.actors[actor]["lock_held_ns"])
    acquire_zone(guest.mm, 0, actor)
    release_zone(guest.mm, 0, actor)
    return int(guest.mm.actors[actor]["lock_held_ns"]) - before


def test_a_hold_of_the_lock_costs_what_was_done_under_it() -> None:
    guest = guest_of()
    pages = guest.fill()
    GuestCosts(guest.mm, PRICES, Discards())
    assert hold(guest, 0) == 1
    guest.give(pages[0])  # Put on a list: its buddy is in use.
    assert hold(guest, 0) == 1 + 16
    guest.give(pages[1])  # The buddy leaves its list, and what both make is put on another.
    assert hold(guest, 0) == 1 + 2 * 16
    assert hold(guest, 0) == 1  # What is paid for is not paid for again.


def test_without_prices_nothing_is_counted_as_held() -> None:
    guest = guest_of()
    assert hold(guest, 0) == 0
    assert guest.mm.actors["lock_hold_ns"].sum() == 0


def test_bringing_a_guest_up_is_not_charged() -> None:
    guest = guest_of()
    assert guest.mm.zones[0]["list_moves"] > 0
    GuestCosts(guest.mm, PRICES, Discards())
    assert hold(guest, 0) == 1


def test_the_hinting_task_pays_for_every_block_that_it_passes_over() -> None:
    guest = guest_of(pages=128)
    guest.give(*guest.fill()[::2])  # Every second page: none merges, one list of 64 single pages.
    costs = GuestCosts(guest.mm, PRICES, Discards())
    cycle = PageReporting(order=0, capacity=32, delay_s=0).start(guest.mm, guest.cpus)
    assert isinstance(cycle.step(0.0), Report)
    # It takes 32 blocks off the list, and looks at one more.
    assert costs.charge_task(reports=1) == pytest.approx((1 + 33 * 256 + 32 * 16) * 1e-9 + 1e-6)
    cycle.drain(True, 0.0)
    assert costs.charge_task() == pytest.approx((1 + 32 * 16) * 1e-9)
    assert isinstance(cycle.step(0.0), Report)
    # The other 32, and on to the list's end past those that were reported.
    assert costs.charge_task() == pytest.approx((1 + 64 * 256 + 32 * 16) * 1e-9)
    cycle.drain(True, 0.0)
    costs.charge_task()
    assert isinstance(cycle.step(0.0), Wait)
    assert costs.charge_task() == 0
    assert costs.task_cpu_s == pytest.approx((4 + 97 * 256 + 128 * 16) * 1e-9 + 1e-6)


def test_a_vcpu_pays_for_its_faults_and_for_what_happened_to_all() -> None:
    guest = guest_of(cpus=4)
    discards = Discards()
    costs = GuestCosts(guest.mm, PRICES, discards)
    bills = [Bill(costs, slice(cpu, cpu + 1)) for cpu in range(2)]
    for bill in bills:
        bill.begin(1.0)
    actor = guest.mm.actors[0]
    actor["faults"] += 3 + 2 * 512
    actor["huge_faults"] += 2
    discards.count = 5
    costs.charge_task(reports=8)
    # Three small faults and two huge ones, five discards with two flushes each, a fourth of the
    # hinting task's 8 us.
    assert bills[0].owed_s(2.0) == pytest.approx((3 * 3 + 2 * 65 + 10 * 512 + 2) * 1e-6)
    assert bills[1].owed_s(2.0) == pytest.approx((10 * 512 + 2) * 1e-6)
    paid = costs.paid_s()
    assert paid.fault_s == pytest.approx((9 + 130) * 1e-6)
    assert paid.interrupted_s == pytest.approx(2 * 10 * 512e-6)
    assert paid.displaced_s == pytest.approx(4e-6)
    assert bills[0].owed_s(3.0) == 0


def test_a_task_that_does_all_vcpus_work_pays_what_one_of_them_does_on_average() -> None:
    guest = guest_of(cpus=4)
    costs = GuestCosts(guest.mm, PRICES, Discards())
    bill = Bill(costs, slice(None))
    guest.mm.actors["faults"][:4] += [8, 0, 4, 0]
    assert bill.owed_s(1.0) == pytest.approx(3 * 3e-6)
    assert costs.paid_s().fault_s == pytest.approx(12 * 3e-6)


def test_a_vcpu_waits_for_the_hinting_task_s_holds_only() -> None:
    guest = guest_of()
    costs = GuestCosts(guest.mm, PRICES, Discards())
    bills = [Bill(costs, slice(cpu, cpu + 1)) for cpu in range(2)]
    guest.mm.zones[0]["list_steps"] = 4000
    task_ns = hold(guest, 2)
    assert task_ns == 1 + 4000 * 256
    for _ in range(10):
        hold(guest, 0)
    # Ten times in a millisecond: all but sure to meet a hold of one.
    wait_s = expected_wait_s(holds_of(task_ns), 10, 0.001)
    assert 0.85e-3 < wait_s < 0.95e-3
    assert bills[0].owed_s(0.001) == pytest.approx(wait_s)
    assert guest.mm.actors[0]["lock_wait_ns"] == round(wait_s * 1e9)
    assert bills[1].owed_s(0.001) == 0  # It never took the lock.


@pytest.mark.parametrize(("takes", "length_ns"), [(1, 15), (100, 4096), (5000, 65536)])
def test_the_wait_is_that_of_a_first_arrival_within_each_hold(takes: int, length_ns: int) -> None:
    length_s = float(BUCKET_MIDDLES[bucket_indices(np.array([length_ns]))[0]]) / 1e9
    by_hand = 3 * (length_s - (1 - math.exp(-takes * length_s)) / takes)
    waited = expected_wait_s(holds_of(length_ns, length_ns, length_ns), takes, 1.0)
    assert waited == pytest.approx(by_hand, rel=1e-3, abs=1e-15)


def test_the_wait_has_its_limits() -> None:
    holds = holds_of(1_000_000)
    length_s = float(BUCKET_MIDDLES[np.flatnonzero(holds)[0]]) / 1e9
    # Seldom: half of a hold in which it falls with probability r h.
    assert expected_wait_s(holds, 1, 1.0) == pytest.approx(length_s**2 / 2, rel=1e-2)
    # Without pause: nearly all of the hold.
    assert expected_wait_s(holds, 10**6, 1.0) == pytest.approx(length_s - 1e-6, rel=1e-6)
    assert expected_wait_s(holds, 0, 1.0) == 0
    assert expected_wait_s(holds, 1, 0.0) == 0
    assert expected_wait_s(holds_of(), 1, 1.0) == 0
