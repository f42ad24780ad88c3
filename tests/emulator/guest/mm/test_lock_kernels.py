"""The zone lock's word, and the histogram of how long it was held."""

import numpy as np
import pytest

from emulator.guest.mm.layout import (
    ACTOR_DONE,
    ACTOR_LOST,
    ACTOR_RUNNING,
    BUCKETS_PER_OCTAVE,
    LOCK_ACQUIRED,
    LOCK_HELD,
    LOCK_SEIZED,
    LOCK_WAITERS,
    NR_BUCKETS,
)
from emulator.guest.mm.lock_kernels import acquire_zone, release_zone, try_acquire_zone
from tests.support.allocator_kernels import count_values
from tests.support.guest import Guest, ZoneOf


@pytest.fixture
def guest() -> Guest:
    return Guest(ZoneOf(pages=16, name="DMA"), ZoneOf(pages=16), cpus=2, pageblock_order=4)


def test_the_word_holds_the_owner(guest: Guest) -> None:
    acquire_zone(guest.mm, 1, 0)
    assert guest.mm.zones["lock"].tolist() == [0, 1]
    acquire_zone(guest.mm, 0, 2)
    assert guest.mm.zones["lock"].tolist() == [3, 1]
    release_zone(guest.mm, 1, 0)
    release_zone(guest.mm, 0, 2)
    assert guest.mm.zones["lock"].tolist() == [0, 0]


def test_a_free_lock_is_acquired(guest: Guest) -> None:
    assert try_acquire_zone(guest.mm, 0, 2) == LOCK_ACQUIRED
    assert guest.mm.zones[0]["lock"] == 3


@pytest.mark.parametrize("waiters", [0, LOCK_WAITERS])
@pytest.mark.parametrize(
    ("state", "found"),
    [(ACTOR_RUNNING, LOCK_HELD), (ACTOR_DONE, LOCK_HELD), (ACTOR_LOST, LOCK_SEIZED)],
)
def test_only_the_dead_are_robbed(guest: Guest, waiters: int, state: int, found: int) -> None:
    acquire_zone(guest.mm, 0, 1)
    guest.mm.zones[0]["lock"] |= waiters
    guest.mm.actors[1]["state"] = state
    assert try_acquire_zone(guest.mm, 0, 2) == found
    # Whoever sleeps on the dead owner's word is woken when it is released.
    assert guest.mm.zones[0]["lock"] == (LOCK_WAITERS + 3 if found == LOCK_SEIZED else waiters + 2)


def test_how_long_it_was_held_is_counted_in_real_time_only(guest: Guest) -> None:
    for virtual in (1, 0):
        guest.mm.kernel[0]["virtual"] = virtual
        acquire_zone(guest.mm, 0, 1)
        release_zone(guest.mm, 0, 1)
        assert guest.mm.actors[1]["lock_hold_ns"].sum() == 1 - virtual
    assert guest.mm.actors[1]["lock_hold_max_ns"] > 0
    assert guest.mm.actors[0]["lock_hold_ns"].sum() == 0


def test_buckets_are_exact_at_first_then_a_sixteenth_of_an_octave() -> None:
    counts = np.zeros(NR_BUCKETS, np.int64)
    for value, bucket in [
        (-5, 0), (0, 0), (1, 1), (15, 15), (16, 16), (31, 31), (32, 32), (33, 32), (34, 33),
        (63, 47), (64, 48), (67, 48), (68, 49), (2**20, 16 * 17), (2**43 - 1, 639), (2**62, 639),
    ]:  # fmt: skip
        counts[:] = 0
        count_values(np.array([value]), counts)
        assert np.flatnonzero(counts).tolist() == [bucket], value
    assert BUCKETS_PER_OCTAVE == 16
