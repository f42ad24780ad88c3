"""Idle and aged: the design argued on the list under v9 of N. Lal's series, 7 March 2019.

A. Duyck, answering M. Tsirkin and D. Hildenbrand ("[RFC][Patch v9 0/6]"): not to collect blocks
where they are freed, but to walk each free list "in reverse order", from its cold end; to note in
the page when it was last freed, and to stop a list's walk where pages are too young; and to tell
from two bits of the page where it stands.  Never built as such.

    young set                free, and not reported since
    neither                  in flight: the host may discard it at any moment
    idle set                 the host has been told, the content may be gone

A block in flight stays on its free list.  The allocator passes over it and takes others
(Hildenbrand: "core mm has to consider these bits and try other pages first"), and waits for it
only where the allocation would fail otherwise, `wait_max` at most.  With `hint_list`, Tsirkin's
alternative: what is in flight leaves the free lists, and an allocation that finds no memory waits
for that list to empty.  In virtual time nobody waits: such an allocation fails, as one whose wait
ended does.

Not in the mail, and chosen here: the figures (`age` is the delay of free page reporting, `order`
and `capacity` are its own; `interval` is HZ/10, as in Duyck's later series); a free wakes the task,
or an idle guest would walk its lists for ever.  The mail leaves open what happens when a block is
split or merged ("one thing I hadn't thought about"); here both halves of an idle block are idle, a
merged block is idle if all its parts are and young otherwise, and a block in flight does not merge:
what was freed beside it meanwhile merges with it when it comes back.  Hildenbrand wants the bits of
all pages of a block set; here the head's stand for them, since no other page is looked at.  Duyck
would check the bits in arch_alloc_page, once a page was taken, and leave skipping for later; here
the allocator skips.

Known flaws, visible when run: a list is in the order of age only as far as nothing else moves
blocks in it.  A young block at the cold end (one that was about to merge, or came from another
type's list) hides the old ones behind it until it has aged.  A walk passes over all that is idle
already ("lists are expensive to search").  In flight, memory counts as free and cannot be had.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import (
    exchange,
    fetch_add,
    futex_wait,
    futex_wake,
    load_acquire,
    store_release,
)
from devices.memory.jit import i64, kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry, Report, Wait
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    FREE_SILENTLY_TO_TAIL,
    free_one_block,
    is_free_buddy,
    isolate_free_block,
    mark_reported,
    pageblock_type,
    tick_of,
    unlink_free,
)
from emulator.guest.mm.hook_kernels import with_hooks
from emulator.guest.mm.layout import (
    MARK_REPORTED,
    MAX_ORDER,
    NR_MIGRATETYPES,
    TICK_MASK,
    TICK_SHIFT,
)
from emulator.guest.mm.list_kernels import free_list_sentinel, list_prev
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.views import GuestMemory

# PAGE.mark of a free block.  The allocator clears it whenever a block is put on a list, and then
# the block is young: so that bit is kept inverted.
MARK_NOT_YOUNG: Final = 0x40
MARK_IDLE: Final = MARK_REPORTED
MARK_STATE: Final = MARK_NOT_YOUNG | MARK_IDLE

ASLEEP: Final = 0  # CONTROL.state: nothing was freed since the last pass began
WOKEN: Final = 1

_NEVER_NS: Final = (1 << 63) - 1
_WAITS_MAX: Final = 10  # of one failing allocation, each `wait_max` / 10 long
_ALL: Final = 0x7FFFFFFF

# `state` is written by whoever frees (exchange, under the zone's lock) and by the hinting task
# (exchange); `requested_ns` before it.  `in_flight` and `drains` are written by the hinting task
# (release) and read by vCPUs that run out of memory (acquire), which sleep on `drains`.  The rest
# belongs to the hinting task.
CONTROL: Final = np.dtype(
    [
        ("state", "<u4"),
        ("drains", "<u4"),  # batches that came back
        ("in_flight", "<u4"),  # pages
        ("hint_list", "<u4"),
        ("order", "<i8"),
        ("capacity", "<i8"),
        ("age_ticks", "<i8"),
        ("wait_ns", "<i8"),  # one wait of an allocation
        ("requested_ns", "<i8"),
        ("due_ns", "<i8"),  # when the first block that was too young is old enough
        ("zone", "<i8"),  # Where the pass is.
        ("list_order", "<i8"),
        ("list_type", "<i8"),
        ("filled", "<i8"),
    ],
    align=True,
)

# Written and read by that vCPU alone: `drains` when it last looked for memory in vain.
WAITER: Final = np.dtype([("drains", "<u4")])


@kernel(inner=True)
def wake_task(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """A block was freed: the first since the last pass wakes the hinting task."""
    control = mm.hooks.control
    if order < control[0]["order"] or load_acquire(control, 0, "state") == WOKEN:
        return
    control[0]["requested_ns"] = now_ns
    if exchange(control, 0, "state", np.uint32(WOKEN)) == ASLEEP:
        store_release(mm.kernel, 0, "doorbell", np.uint32(1))


@kernel(inline=True)
def is_at_rest(mm: Any, z: int, pfn: int, order: int) -> bool:
    """Whether a free block is young or idle, and not in flight: one read tests both."""
    return (mm.pages[pfn]["mark"] & MARK_STATE) != MARK_NOT_YOUNG


@kernel(inline=True)
def _set_idle(mm: Any, z: int, pfn: int) -> None:
    mm.pages[pfn]["mark"] |= MARK_NOT_YOUNG
    mark_reported(mm, z, pfn)


@kernel(inline=True)
def inherit(mm: Any, z: int, pfn: int, order: int, mark: int) -> None:
    """Half of an idle block is idle: its content is gone just the same."""
    if mark & MARK_IDLE:
        _set_idle(mm, z, pfn)


@kernel(inner=True)
def wait_for_host(mm: Any, cpu: int, order: int, attempt: int) -> bool:
    """Whether an allocation should look once more, after a wait for what is in flight."""
    if mm.kernel[0]["virtual"] != 0 or attempt >= _WAITS_MAX:
        return False
    control = mm.hooks.control
    drains = load_acquire(control, 0, "drains")
    if load_acquire(control, 0, "in_flight") == 0:
        # Again only if something came back between the last look and now.
        missed = drains != mm.hooks.waiters[cpu]["drains"]
        mm.hooks.waiters[cpu]["drains"] = drains
        return missed
    mm.hooks.waiters[cpu]["drains"] = drains
    futex_wait(control, 0, "drains", drains, i64(control[0]["wait_ns"]))
    return True


@with_hooks(
    block_freed=wake_task,
    may_take=is_at_rest,
    may_merge=is_at_rest,
    block_split=inherit,
    before_failing=wait_for_host,
)
class IdleAgeHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    waiters: npt.NDArray[Any]


@kernel(inner=True)
def _begin_hinting(mm: Any, z: int, pfn: int, order: int) -> bool:
    """From young to in flight; False: the zone is too short to put the block on the hint list."""
    control = mm.hooks.control
    if control[0]["hint_list"] == 0:
        mm.pages[pfn]["mark"] |= MARK_NOT_YOUNG
    elif not isolate_free_block(mm, z, pfn, order):
        return False
    in_flight = i64(control[0]["in_flight"]) + (1 << order)
    store_release(control, 0, "in_flight", np.uint32(in_flight))
    return True


@kernel(inner=True)
def _walk_list(mm: Any, actor: int, batch: Any, z: int, order: int, migratetype: int) -> bool:
    """Take what is old enough from the cold end of one list; whether the batch is full."""
    control = mm.hooks.control[0]
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    if list_prev(mm.pages, sentinel) == sentinel:
        return False
    full = False
    age_min = i64(control["age_ticks"])
    now_ns = lock_zone(mm, z, actor)
    at = list_prev(mm.pages, sentinel)
    while at != sentinel and not full:
        colder = at
        at = list_prev(mm.pages, at)
        mm.zones[z]["list_steps"] += 1
        if mm.pages[colder]["mark"] & MARK_STATE != 0:
            continue
        stamp = i64(mm.pages[colder]["stamp"])
        age = (tick_of(now_ns) - stamp) & TICK_MASK
        if stamp != 0 and age < age_min:  # Stamp 0: nobody has used it since boot.
            due_ns = now_ns + ((age_min - age + 1) << TICK_SHIFT)
            control["due_ns"] = min(i64(control["due_ns"]), due_ns)
            break
        full = control["filled"] == control["capacity"]
        if full or not _begin_hinting(mm, z, colder, order):
            break
        entry = batch[i64(control["filled"])]
        entry["pfn"] = colder
        entry["order"] = order
        entry["zone"] = z
        control["filled"] += 1
    unlock_zone(mm, z, actor)
    return full


@kernel
def begin_pass(mm: Any) -> None:
    """Start with the largest blocks of the first zone."""
    control = mm.hooks.control[0]
    exchange(mm.hooks.control, 0, "state", np.uint32(ASLEEP))
    control["due_ns"] = _NEVER_NS
    control["zone"] = 0
    control["list_order"] = MAX_ORDER
    control["list_type"] = 0


@kernel
def fill_batch(mm: Any, actor: int, batch: Any) -> int:
    """Put blocks of one zone in flight, `batch[:n]`; returns n, or 0 when the pass is over."""
    control = mm.hooks.control[0]
    control["filled"] = 0
    while control["zone"] < mm.kernel[0]["nr_zones"]:
        while control["list_order"] >= control["order"]:
            order, migratetype = i64(control["list_order"]), i64(control["list_type"])
            if _walk_list(mm, actor, batch, i64(control["zone"]), order, migratetype):
                return i64(control["filled"])
            control["list_type"] += 1
            if control["list_type"] == NR_MIGRATETYPES:
                control["list_type"] = 0
                control["list_order"] -= 1
        control["zone"] += 1
        control["list_order"] = MAX_ORDER
        if control["filled"] > 0:
            return i64(control["filled"])
    return 0


@kernel(inner=True)
def _end_hinting(mm: Any, z: int, pfn: int, order: int, reported: bool, now_ns: int) -> None:
    """From in flight to idle, or back to young; merges with what was freed beside it meanwhile."""
    idle = reported
    at, merged = pfn, order
    while merged < MAX_ORDER and is_free_buddy(mm, z, at ^ (1 << merged), merged):
        buddy = at ^ (1 << merged)
        idle = idle and (mm.pages[buddy]["mark"] & MARK_IDLE) != 0
        at &= buddy
        merged += 1
    if mm.hooks.control[0]["hint_list"] != 0:
        mm.zones[z]["isolated_pages"] -= 1 << order
    elif merged != order:
        unlink_free(mm, z, pfn, order)
        mm.zones[z]["free_pages"] -= 1 << order
    else:  # It stays where it is.
        if reported:
            mark_reported(mm, z, pfn)
        else:
            mm.pages[pfn]["mark"] = 0
        return
    # Idle or still old to the cold end; made young by its buddy to the warm one, as that was.
    flags = FREE_SILENTLY_TO_TAIL if idle or merged == order else FREE_NOTIFYING
    free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), flags, now_ns)
    if idle:
        _set_idle(mm, z, at)


@kernel
def drain_batch(mm: Any, actor: int, batch: Any, count: int, reported: bool) -> None:
    """`batch[:count]`, of one zone, came back: end its flight and wake whoever waits for memory."""
    control = mm.hooks.control
    z = i64(batch[0]["zone"])
    now_ns = lock_zone(mm, z, actor)
    for index in range(count):
        pfn, order = i64(batch[index]["pfn"]), i64(batch[index]["order"])
        _end_hinting(mm, z, pfn, order, reported, now_ns)
    store_release(control, 0, "in_flight", np.uint32(0))
    unlock_zone(mm, z, actor)
    fetch_add(control, 0, "drains", np.uint32(1))
    futex_wake(control, 0, "drains", _ALL, 0)


class IdleAgeCycle:
    """One guest's passes: one is due when the first block that was too young is old enough."""

    def __init__(self, mechanism: "IdleAge", mm: GuestMemory, actor: int) -> None:
        self._mm = mm
        self._actor = actor
        self._age_s = mechanism.age_s
        self._interval_s = mechanism.interval_s
        self._control = mm.hooks.control
        self._batch = np.zeros(mechanism.capacity, BATCH)
        self._count = 0
        order = mechanism.order
        control = self._control[0]
        control["order"] = mm.kernel[0]["pageblock_order"] if order is None else order
        control["capacity"] = mechanism.capacity
        control["hint_list"] = mechanism.hint_list
        control["age_ticks"] = round(mechanism.age_s * 1e9) >> TICK_SHIFT
        control["wait_ns"] = round(mechanism.wait_max_s * 1e9) // _WAITS_MAX
        self._due_s: float | None = None
        self._not_before_s: float | None = None  # None: not yet begun
        self._in_pass = False

    def step(self, now_s: float) -> Wait | Report:
        """Wait until something is old enough, then report batch after batch until none is left."""
        if not self._in_pass:
            due_s = self._when_due(now_s)
            if due_s is None or now_s < due_s:
                return Wait(due_s)
            begin_pass(self._mm)
            self._in_pass = True
        self._count = int(fill_batch(self._mm, self._actor, self._batch))
        if self._count:
            return Report(self._batch[: self._count])
        due_ns = int(self._control[0]["due_ns"])
        self._end_pass(now_s, None if due_ns == _NEVER_NS else due_ns / 1e9)
        return Wait(self._when_due(now_s))

    def drain(self, reported: bool, now_s: float) -> None:
        """The batch came back; where the host did not take it, the next pass is an age away."""
        drain_batch(self._mm, self._actor, self._batch, self._count, reported)
        if not reported:
            self._end_pass(now_s, now_s + self._age_s)

    def _end_pass(self, now_s: float, due_s: float | None) -> None:
        self._in_pass = False
        self._due_s = due_s
        self._not_before_s = now_s + self._interval_s

    def _when_due(self, now_s: float) -> float | None:
        """When the next pass begins; None: when something is freed."""
        if self._not_before_s is None:  # Nothing has been free for long before that.
            self._due_s = self._not_before_s = now_s + self._age_s
        due_s = self._due_s
        control = self._control[0]
        if control["state"] == WOKEN:
            woken_s = int(control["requested_ns"]) / 1e9 + self._age_s
            due_s = woken_s if due_s is None else min(due_s, woken_s)
        return None if due_s is None else max(due_s, self._not_before_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleAge:
    """Parameters; the mail gives no figures (see above)."""

    name: ClassVar[str] = "idle_age"
    order: int | None = None  # None: the guest's pageblock_order
    age_s: float = 2.0  # A page freed more recently ends its list's walk.
    capacity: int = 32
    interval_s: float = 0.1  # between two passes, at least
    hint_list: bool = False
    wait_max_s: float = 0.1  # How long an allocation waits at most before it fails.

    def __post_init__(self) -> None:
        if self.order is not None and not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")
        if not 0 <= self.age_s <= 1e5:
            raise ValueError(f"age: {self.age_s} s is not between 0 and 1e5 s")
        if not 1 <= self.capacity <= 1024:
            raise ValueError(f"capacity: {self.capacity} is not one of 1 to 1024")
        if not 0.001 <= self.interval_s <= 1e5:
            raise ValueError(f"interval: {self.interval_s} s is not between 0.001 and 1e5 s")
        if not 0 <= self.wait_max_s <= 10:
            raise ValueError(f"wait_max: {self.wait_max_s} s is not between 0 and 10 s")

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """What frees, failing allocations and the hinting task share."""
        return {"control": (CONTROL, 1), "waiters": (WAITER, geometry.nr_cpus)}

    def hooks(self, arrays: Mapping[str, Any]) -> IdleAgeHooks:
        """Called for each free of a block, each block looked at, split or merged with."""
        return IdleAgeHooks(arrays["control"], arrays["waiters"])

    def start(self, mm: GuestMemory, actor: int) -> IdleAgeCycle:
        """The first pass is due an age from now."""
        return IdleAgeCycle(self, mm, actor)
