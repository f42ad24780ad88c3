"""What a vCPU held whose process died comes back, wherever it died."""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from devices.memory.jit import interpreted
from emulator.guest.mm.layout import ACTOR_LOST, ALLOCATED, BUDDY, ISOLATED, MOVABLE, PCP, UNMOVABLE
from emulator.guest.mm.lock_kernels import acquire_zone, release_zone
from emulator.guest.mm.page_alloc_kernels import drain_pcps
from emulator.guest.mm.views import GuestMemory
from emulator.guest.recovery_task import take_back
from tests.support.allocator_kernels import alloc, free, isolate, put_back, split
from tests.support.guest import Guest, ZoneOf
from tests.support.mortal import Killed, Life, mortal_memory


@pytest.fixture
def guest() -> Guest:
    """Two vCPUs with a block each in use and on their lists, in each of two zones."""
    guest = Guest(ZoneOf(pages=48, name="DMA"), ZoneOf(pages=48), cpus=2, pageblock_order=4)
    guest.set_pcp(batch=1, high=100)
    extra = []
    for cpu in (0, 1):
        for z in (0, 1):
            guest.mm.zones["watermark_min"] = guest.mm.zones["watermark_low"] = 10**6
            guest.mm.zones[z]["watermark_min"] = 0
            assert alloc(guest.mm, cpu, 1, MOVABLE) // 48 == z
            extra += [(cpu, int(alloc(guest.mm, cpu, it, MOVABLE)), it) for it in (1, 0, 0, 0)]
    for cpu, pfn, order in extra:
        free(guest.mm, cpu, pfn, order)
    guest.mm.zones["watermark_min"] = guest.mm.zones["watermark_low"] = 0
    guest.set_pcp(batch=3, high=6)
    assert guest.counts().tolist() == [0, 68, 20, 0, 8, 0, 0, 0]
    return guest


async def test_the_living_keep_what_they_hold(guest: Guest) -> None:
    lists = [guest.pcp_lists(1, z) for z in (0, 1)]
    assert await take_back(guest.mm, 0, now_ns=0) == 14
    assert guest.counts().tolist() == [0, 82, 10, 0, 4, 0, 0, 0]
    assert [guest.pcp_lists(1, z) for z in (0, 1)] == lists
    assert guest.pcp_lists(0, 0) == guest.pcp_lists(0, 1) == {}
    assert guest.mm.actors["state"].tolist() == [ACTOR_LOST, 0, 0]
    assert guest.mm.zones["lock"].tolist() == [0, 0]


async def test_all_have_died(guest: Guest) -> None:
    assert await take_back(guest.mm, 1, now_ns=0) + await take_back(guest.mm, 0, now_ns=0) == 28
    assert guest.counts()[BUDDY] == 96
    assert guest.free_lists(0) == {(4, MOVABLE): [32], (5, MOVABLE): [0]}


@pytest.mark.parametrize("z", [0, 1])
async def test_the_lock_of_the_dead_is_taken_and_its_lists_made_anew(guest: Guest, z: int) -> None:
    acquire_zone(guest.mm, z, 0)
    guest.mm.zones[z]["nr_free"] = 99  # Half done with something.
    guest.mm.zones[z]["free_pages"] = -1
    assert await take_back(guest.mm, 0, now_ns=0) == 14
    assert guest.counts().tolist() == [0, 82, 10, 0, 4, 0, 0, 0]
    assert guest.mm.zones["lock"].tolist() == [0, 0]


async def test_a_lock_of_the_living_is_waited_for(guest: Guest, autojump_clock: MockClock) -> None:
    acquire_zone(guest.mm, 0, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(take_back, guest.mm, 0, now_ns=0))
        await trio.sleep(1)
        assert guest.mm.zones["lock"].tolist() == [2, 0]
        release_zone(guest.mm, 0, 1)
    assert guest.counts()[PCP] == 10


async def test_two_who_died_one_waiting_for_the_other(
    guest: Guest, autojump_clock: MockClock
) -> None:
    acquire_zone(guest.mm, 0, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(take_back, guest.mm, 0, now_ns=0))
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(take_back, guest.mm, 1, now_ns=0))
    assert guest.counts()[BUDDY] == 96


async def test_blocks_of_the_hinting_task_stay_isolated(guest: Guest) -> None:
    head = guest.free_list(5, MOVABLE)[0]
    assert isolate(guest.mm, 0, head, 5)
    acquire_zone(guest.mm, 0, 0)
    await take_back(guest.mm, 0, now_ns=0)
    assert guest.counts()[ISOLATED] == 32
    put_back(guest.mm, 0, head, 5)
    assert guest.counts()[ISOLATED] == 0


async def test_the_mechanism_is_told_of_what_became_free(guest: Guest) -> None:
    control = guest.mm.hooks.control[0]
    control["order"] = 2
    await take_back(guest.mm, 0, now_ns=12345)
    assert control["state"] == 1
    assert control["requested_ns"] == 12345


# --- Death at every store, with kernels interpreted.


def refill_and_steal(mm: GuestMemory, guest: Guest) -> None:
    alloc(mm, 0, 0, UNMOVABLE)


def allocate_directly(mm: GuestMemory, guest: Guest) -> None:
    alloc(mm, 0, 4, UNMOVABLE)


def free_directly(mm: GuestMemory, guest: Guest) -> None:
    free(mm, 0, in_use(guest, 0, 4), 4)


def spill_and_merge(mm: GuestMemory, guest: Guest) -> None:
    drain_pcps(mm, 0)


def free_and_spill(mm: GuestMemory, guest: Guest) -> None:
    guest.set_pcp(batch=3, high=4)
    free(mm, 0, in_use(guest, 0, 1), 1)


def free_another_s_block(mm: GuestMemory, guest: Guest) -> None:
    free(mm, 0, in_use(guest, 1, 1), 1)


def split_and_free_a_part(mm: GuestMemory, guest: Guest) -> None:
    pfn = in_use(guest, 0, 4)
    split(mm, pfn + 4, 1)
    free(mm, 0, pfn + 4, 1)


def run_out_of_memory(mm: GuestMemory, guest: Guest) -> None:
    alloc(mm, 0, 6, MOVABLE)


def in_use(guest: Guest, owner: int, order: int) -> int:
    """The first block of `owner` that is in use."""
    pages = guest.mm.pages
    return next(
        pfn
        for pfn in range(96)
        if pages[pfn]["kind"] == ALLOCATED
        and pages[pfn]["owner"] == owner
        and pages[pfn]["order"] == order
    )


OPERATIONS = [
    refill_and_steal,
    allocate_directly,
    free_directly,
    spill_and_merge,
    free_and_spill,
    free_another_s_block,
    split_and_free_a_part,
    run_out_of_memory,
]


@pytest.mark.skipif(not interpreted(), reason="run by test_compilations, uncompiled")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_death_at_any_store(
    guest: Guest, operation: Callable[[GuestMemory, Guest], None]
) -> None:
    assert alloc(guest.mm, 0, 4, MOVABLE) >= 0
    saved = guest.save()
    whole = Life(None)
    operation(mortal_memory(guest.mm, whole), guest)
    assert whole.done > 8
    for stores in range(whole.done):
        guest.restore(saved)
        with pytest.raises(Killed):
            operation(mortal_memory(guest.mm, Life(stores)), guest)
        await take_back(guest.mm, 0, now_ns=0)
        counts = guest.counts()
        assert counts[PCP] == 10, stores
        # A block of the other vCPU is that one's, or free.
        assert counts[ALLOCATED] in ((4,) if operation is not free_another_s_block else (4, 2))
        assert counts[BUDDY] == 96 - 10 - counts[ALLOCATED], stores
        guest.mm.actors[1]["state"] = 0
        await take_back(guest.mm, 1, now_ns=0)
        assert guest.counts()[BUDDY] == 96, stores
