"""The locks of the zones and of the page cache: words in shared memory that hold their owners.

It spins briefly and then sleeps on a futex: more vCPU processes than cores is the normal case, and
a pure spinlock would burn the time slice of the vCPU that holds the lock.  The owner's number in
the word is what lets a dead owner be found (`recovery_task`).  Not fair, as any lock that lets a
running process overtake sleepers; a ticket lock would hand off to sleepers, at 44 us each.

    0                 free
    owner + 1         held
    LOCK_WAITERS      or-ed in: somebody may sleep, so the release must wake one

Nobody takes one of these locks while holding another.
"""

from typing import Any

import numpy as np

from devices.memory.atomics import (
    compare_exchange,
    exchange,
    futex_wait,
    futex_wake,
    load_relaxed,
    monotonic_ns,
    pause,
)
from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import (
    ACTOR_LOST,
    BUCKETS_PER_OCTAVE,
    LOCK_ACQUIRED,
    LOCK_HELD,
    LOCK_OWNER_MASK,
    LOCK_SEIZED,
    LOCK_WAITERS,
    NR_BUCKETS,
)

_SPINS_MAX = 200  # About 5 us: longer than most holds, far shorter than a sleep and wake-up.
_SLEEP_MAX_NS = 50_000_000  # A sleeper looks again even if the one who should wake it was killed.


@kernel(inner=True)
def bucket_of(value: int) -> int:
    """The bucket of a histogram that counts `value`: sixteen an octave."""
    v = i64(max(value, 0))
    shift = i64(0)
    while (v >> shift) >= 2 * BUCKETS_PER_OCTAVE:
        shift += 1
    return min(BUCKETS_PER_OCTAVE * shift + (v >> shift), NR_BUCKETS - 1)


@kernel(inline=True)
def now(mm: Any) -> int:
    """The guest's clock, ns: real, or the virtual one that the launcher keeps."""
    if mm.kernel[0]["virtual"] != 0:
        return i64(mm.kernel[0]["virtual_now_ns"])
    return monotonic_ns()


@kernel(inner=True)
def _lock_slowly(locks: Any, at: int, actor: int) -> int:
    """Take `locks[at]["lock"]`, which was not free; how long that took, ns of real time."""
    began_ns = monotonic_ns()
    mine = np.uint32(actor + 1)
    for _ in range(_SPINS_MAX):
        if load_relaxed(locks, at, "lock") == 0:
            if compare_exchange(locks, at, "lock", np.uint32(0), mine) == 0:
                return monotonic_ns() - began_ns
        pause()
    while True:
        old = load_relaxed(locks, at, "lock")
        if old == 0:
            # Others may sleep: take it with the mark, at the price of one wake-up too many.
            taken = np.uint32(mine | np.uint32(LOCK_WAITERS))
            if compare_exchange(locks, at, "lock", np.uint32(0), taken) == 0:
                break
        else:
            marked = np.uint32(old | np.uint32(LOCK_WAITERS))
            if old == marked or compare_exchange(locks, at, "lock", old, marked) == old:
                futex_wait(locks, at, "lock", marked, _SLEEP_MAX_NS)
    return monotonic_ns() - began_ns


@kernel(inner=True)
def _try_lock(mm: Any, locks: Any, at: int, actor: int) -> int:
    """Take the lock if it is free, or if its owner is lost: LOCK_HELD, _ACQUIRED or _SEIZED."""
    old = load_relaxed(locks, at, "lock")
    mine = np.uint32(actor + 1)
    found = LOCK_ACQUIRED
    if old != 0:
        owner = i64(old & np.uint32(LOCK_OWNER_MASK)) - 1
        if mm.actors[owner]["state"] != ACTOR_LOST:
            return LOCK_HELD
        mine = np.uint32(mine | np.uint32(LOCK_WAITERS))  # Whoever sleeps is woken on release.
        found = LOCK_SEIZED
    if compare_exchange(locks, at, "lock", old, mine) != old:
        return LOCK_HELD
    return found


@kernel(inline=True)
def lock_zone(mm: Any, z: int, actor: int) -> int:
    """Take the lock of zone `z` for `actor`; returns the time, ns."""
    if compare_exchange(mm.zones, z, "lock", np.uint32(0), np.uint32(actor + 1)) != 0:
        mm.actors[actor]["lock_wait_ns"] += _lock_slowly(mm.zones, z, actor)
    acquired_ns = now(mm)
    mm.actors[actor]["lock_acquired_ns"] = acquired_ns
    mm.actors[actor]["lock_takes"] += 1
    return acquired_ns


@kernel(inner=True)
def _priced_hold_ns(mm: Any, z: int) -> int:
    """What this hold of the lock takes in virtual time: a price for each thing that was done."""
    zone, prices = mm.zones[z], mm.kernel[0]
    held_ns = prices["lock_ns"]
    held_ns += zone["list_moves"] * prices["list_move_ns"]
    held_ns += zone["list_steps"] * prices["list_step_ns"]
    zone["list_moves"] = 0
    zone["list_steps"] = 0
    return i64(held_ns + 0.5)


@kernel(inner=True)
def _count_hold(mm: Any, actor: int, held_ns: int) -> None:
    record = mm.actors[actor]
    record["lock_hold_ns"][bucket_of(held_ns)] += 1
    if held_ns > record["lock_hold_max_ns"]:
        record["lock_hold_max_ns"] = held_ns


@kernel(inner=True)
def unlock_zone(mm: Any, z: int, actor: int) -> None:
    """Release the lock, wake a sleeper, and count how long it was held: in real time as it was, in
    virtual time, in which nothing takes time by itself, as it is priced or not at all."""
    if mm.kernel[0]["virtual"] == 0:
        _count_hold(mm, actor, monotonic_ns() - i64(mm.actors[actor]["lock_acquired_ns"]))
    elif mm.kernel[0]["priced"] != 0:
        held_ns = _priced_hold_ns(mm, z)
        mm.actors[actor]["lock_held_ns"] += held_ns
        _count_hold(mm, actor, held_ns)
    if exchange(mm.zones, z, "lock", np.uint32(0)) >= np.uint32(LOCK_WAITERS):
        futex_wake(mm.zones, z, "lock", 1, 0)


@kernel
def acquire_zone(mm: Any, z: int, actor: int) -> None:
    """`lock_zone`, from Python."""
    lock_zone(mm, z, actor)


@kernel
def release_zone(mm: Any, z: int, actor: int) -> None:
    """`unlock_zone`, from Python."""
    unlock_zone(mm, z, actor)


@kernel
def try_acquire_zone(mm: Any, z: int, actor: int) -> int:
    """Take a zone's lock if it is free, or if its owner is lost: LOCK_HELD, _ACQUIRED, _SEIZED."""
    found = _try_lock(mm, mm.zones, z, actor)
    if found != LOCK_HELD:
        mm.actors[actor]["lock_acquired_ns"] = now(mm)
        mm.actors[actor]["lock_takes"] += 1
    return found


@kernel(inline=True)
def lock_cache(mm: Any, actor: int) -> None:
    """Take the page cache's lock for `actor`."""
    control = mm.cache.control
    if compare_exchange(control, 0, "lock", np.uint32(0), np.uint32(actor + 1)) != 0:
        _lock_slowly(control, 0, actor)


@kernel(inline=True)
def unlock_cache(mm: Any) -> None:
    """Release it, and wake a sleeper."""
    if exchange(mm.cache.control, 0, "lock", np.uint32(0)) >= np.uint32(LOCK_WAITERS):
        futex_wake(mm.cache.control, 0, "lock", 1, 0)


@kernel
def try_acquire_cache(mm: Any, actor: int) -> int:
    """Take the cache's lock if it is free, or if its owner is lost: as `try_acquire_zone`."""
    return _try_lock(mm, mm.cache.control, 0, actor)


@kernel
def release_cache(mm: Any) -> None:
    """`unlock_cache`, from Python."""
    unlock_cache(mm)
