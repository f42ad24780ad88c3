"""What aeration and page_hinting have in common: the boundary, the zones' requests, the worker.

Both are A. Duyck's, of 2019 (mails 001 and 000, and the patches that they belong to).  A free list
holds blocks that may hold data (*raw*), and behind them those that the host has been told of
(*marked*, MARK_REPORTED here), the newest first:

    head [ raw, raw, ...  |  marked, ..., marked ] tail
                             ^ boundary[order][migratetype]

A block crosses the boundary only by being reported.  The worker pulls from just above it, where
raw blocks are coldest, and puts back just above it; what others put "at the tail" goes above it,
too.  There is one set of boundaries, for the one zone that is being worked on (ACTIVE): they are
forgotten when the worker leaves the zone, and begin anew at the lists' ends when it comes back.
Then marked blocks lie above the boundary, and the worker takes from the head instead, where raw
blocks are warmest; so cold blocks go first only on lists that hold no marked block yet.

A zone that has `high_water` raw blocks of one order sets REQUESTED and takes a reference.  The
first reference schedules the worker, `delay` later.  The worker goes through the zones until no
reference but its own is left:

    fill     pull blocks, largest order and last migratetype first, until the batch is full, or
             there are none: then the zone's request and its reference are dropped
    react    have the batch reported, the zone's lock released
    drain    put the blocks back, marked unless they merged; fill again while REQUESTED
    idle     no reference is left: until the next one

Different from both: whoever dies holding a zone's lock may leave a flag without its reference, so
the worker counts anew where it finds no request (`next_zone`); a report may fail, and then the
blocks go back unmarked and the zone's request is dropped, for there is nobody to tell.  Blocks that
are moved to another migratetype's list go to its tail, as in Linux 6.6, not to its head.

Invariants: `flags & REQUESTED` holds one reference each.  While ACTIVE, `boundary[order][type]` is
that list's sentinel or a marked block on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import (
    compare_exchange,
    exchange,
    fetch_add,
    load_acquire,
    store_release,
)
from devices.memory.jit import i64, kernel
from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.buddy_kernels import (
    FREE_SILENTLY_TO_TAIL,
    free_one_block,
    mark_reported,
    unlink_free,
    watermark_ok,
)
from emulator.guest.mm.layout import (
    ISOLATED,
    MARK_REPORTED,
    MAX_ORDER,
    MIGRATETYPE_MASK,
    NO_PAGE,
    NR_MIGRATETYPES,
    NR_ORDERS,
)
from emulator.guest.mm.list_kernels import free_list_sentinel, list_next, list_prev
from emulator.guest.mm.lock_kernels import lock_zone, now, unlock_zone
from emulator.guest.mm.views import GuestMemory

# Flags of a zone, in the mechanism's own `zones`; changed under the zone's lock.
REQUESTED: Final = 1
ACTIVE: Final = 2

# `due_ns` and `refcnt` are written by whoever frees and by the worker, atomically; `enabled` once,
# as the last step of the start-up.  The rest is the worker's, and constant but for `zone`.
CONTROL: Final = np.dtype(
    [
        ("due_ns", "<u8"),  # when the worker starts (delayed_work); 0: it is not scheduled
        ("refcnt", "<i4"),
        ("enabled", "<u4"),  # the static key
        ("order", "<i8"),
        ("high_water", "<i8"),
        ("delay_ns", "<i8"),
        ("keep_watermark", "<i8"),
        ("zone", "<i8"),  # where the worker is
    ],
    align=True,
)
BOUNDARY: Final = (np.dtype("<i8"), NR_ORDERS * NR_MIGRATETYPES)  # page frame or sentinel


@kernel(inline=True)
def is_active(mm: Any, z: int) -> bool:
    """Whether the boundaries are those of zone `z`."""
    return (i64(mm.hooks.zones[z]["flags"]) & ACTIVE) != 0


@kernel(inline=True)
def is_requested(mm: Any, z: int) -> bool:
    """Whether zone `z` is to be worked on."""
    return (i64(load_acquire(mm.hooks.zones, z, "flags")) & REQUESTED) != 0


@kernel(inner=True)
def tail_above_boundary(mm: Any, z: int, order: int, migratetype: int, sentinel: int) -> int:
    """Hook `tail_of_list`: raw blocks do not get behind marked ones while the zone is ACTIVE."""
    if order < mm.hooks.control[0]["order"] or not is_active(mm, z):
        return sentinel
    return i64(mm.hooks.boundary[order * NR_MIGRATETYPES + migratetype])


@kernel(inner=True)
def activate(mm: Any, z: int) -> None:
    """Every boundary to its list's end: nothing is known to be marked; set ACTIVE."""
    for order in range(NR_ORDERS):
        for migratetype in range(NR_MIGRATETYPES):
            sentinel = free_list_sentinel(mm, z, order, migratetype)
            mm.hooks.boundary[order * NR_MIGRATETYPES + migratetype] = sentinel
    mm.hooks.zones[z]["flags"] = i64(mm.hooks.zones[z]["flags"]) | ACTIVE


@kernel(inner=True)
def mark_block(mm: Any, z: int, pfn: int, order: int, migratetype: int) -> None:
    """Mark a block that was put back just above the boundary, which thereby moves up to it."""
    mark_reported(mm, z, pfn)
    mm.pages[pfn]["mark"] |= migratetype  # Of the list it is on, for `unmark_block`.
    mm.hooks.boundary[order * NR_MIGRATETYPES + migratetype] = pfn


@kernel(inner=True)
def unmark_block(mm: Any, z: int, pfn: int, order: int) -> None:
    """A marked block leaves its list: it is raw, and the boundary does not stay with it."""
    page = mm.pages[pfn]
    if is_active(mm, z):
        index = order * NR_MIGRATETYPES + (i64(page["mark"]) & MIGRATETYPE_MASK)
        if mm.hooks.boundary[index] == pfn:
            mm.hooks.boundary[index] = list_next(mm.pages, pfn)
    page["mark"] = 0
    mm.zones[z]["reported_pages"] -= 1 << order


@kernel(inner=True)
def schedule(mm: Any, now_ns: int) -> None:
    """schedule_delayed_work: in `delay`, unless it is scheduled already."""
    control = mm.hooks.control
    due_ns = np.uint64(max(now_ns + i64(control[0]["delay_ns"]), 1))
    if compare_exchange(control, 0, "due_ns", np.uint64(0), due_ns) == 0:
        store_release(mm.kernel, 0, "doorbell", np.uint32(1))


@kernel(inner=True)
def request_zone(mm: Any, z: int, now_ns: int) -> bool:
    """Set REQUESTED and take a reference; whether it was the first.  The lock is held."""
    mm.hooks.zones[z]["flags"] = i64(mm.hooks.zones[z]["flags"]) | REQUESTED
    if fetch_add(mm.hooks.control, 0, "refcnt", np.int32(1)) != 0:
        return False
    schedule(mm, now_ns)
    return True


@kernel(inner=True)
def forget_marks(mm: Any, z: int) -> None:
    """Hook `lists_forgotten`, but for the statistics: all blocks of the zone are raw; ask for work.

    Scheduled in any case: who died may have taken the first reference, and not come to that.
    """
    if is_active(mm, z):
        activate(mm, z)
    if mm.hooks.control[0]["enabled"] != 0:
        if not is_requested(mm, z):
            request_zone(mm, z, now(mm))
        schedule(mm, now(mm))


@kernel(inner=True)
def drop_request(mm: Any, z: int) -> None:
    """Nothing is left to pull: clear REQUESTED, give its reference back."""
    mm.hooks.zones[z]["flags"] = i64(mm.hooks.zones[z]["flags"]) & ~REQUESTED
    fetch_add(mm.hooks.control, 0, "refcnt", np.int32(-1))


@kernel(inner=True)
def _pull(mm: Any, z: int, order: int, migratetype: int) -> int:
    """The raw block just above the boundary, or else the list's first; taken off, or NO_PAGE."""
    pages = mm.pages
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    pfn = list_prev(pages, tail_above_boundary(mm, z, order, migratetype, sentinel))
    if pfn == sentinel:
        return NO_PAGE
    if pages[pfn]["mark"] & MARK_REPORTED:
        pfn = list_next(pages, sentinel)
        if pages[pfn]["mark"] & MARK_REPORTED:
            # Both ends are marked: let the list look empty from now on.
            mm.hooks.boundary[order * NR_MIGRATETYPES + migratetype] = pfn
            return NO_PAGE
    if mm.hooks.control[0]["keep_watermark"] != 0:
        if not watermark_ok(mm, z, 0, i64(mm.zones[z]["watermark_min"]) + (1 << order)):
            return NO_PAGE
    unlink_free(mm, z, pfn, order)
    mm.zones[z]["free_pages"] -= 1 << order
    mm.zones[z]["isolated_pages"] += 1 << order
    pages[pfn]["mark"] = migratetype
    pages[pfn]["kind"] = ISOLATED
    return pfn


@kernel(inner=True)
def pull_next(mm: Any, z: int) -> int:
    """The next block to report, isolated, its migratetype in `mark`; or NO_PAGE.

    Orders and types descend.  A list that has nothing has nothing again within one fill.
    """
    for down in range(NR_ORDERS - i64(mm.hooks.control[0]["order"])):
        for back in range(NR_MIGRATETYPES):
            pfn = _pull(mm, z, MAX_ORDER - down, NR_MIGRATETYPES - 1 - back)
            if pfn != NO_PAGE:
                return pfn
    return NO_PAGE


@kernel(inner=True)
def put_back(mm: Any, z: int, pfn: int, now_ns: int) -> int:
    """To the tail of the list that the block came from, unnoticed; returns its final order."""
    page = mm.pages[pfn]
    order = i64(page["order"])
    migratetype = i64(page["mark"]) & MIGRATETYPE_MASK
    mm.zones[z]["isolated_pages"] -= 1 << order
    return free_one_block(mm, z, pfn, order, migratetype, FREE_SILENTLY_TO_TAIL, now_ns)


@kernel(inner=True)
def leave_zone(mm: Any, z: int) -> None:
    """Clear ACTIVE: the boundaries are no longer kept."""
    mm.hooks.zones[z]["flags"] = i64(mm.hooks.zones[z]["flags"]) & ~ACTIVE
    mm.hooks.control[0]["zone"] = z + 1


@kernel
def start_up(mm: Any, actor: int, now_ns: int) -> None:
    """Request every populated zone, and only then listen to frees."""
    for z in range(i64(mm.kernel[0]["nr_zones"])):
        if mm.zones[z]["managed"] > 0:
            lock_zone(mm, z, actor)
            request_zone(mm, z, now_ns)
            unlock_zone(mm, z, actor)
    store_release(mm.hooks.control, 0, "enabled", np.uint32(1))


@kernel
def start_worker(mm: Any, own: int) -> None:
    """The delayed work runs; it holds `own` references itself."""
    exchange(mm.hooks.control, 0, "due_ns", np.uint64(0))
    fetch_add(mm.hooks.control, 0, "refcnt", np.int32(own))
    mm.hooks.control[0]["zone"] = 0


@kernel
def next_zone(mm: Any, own: int) -> int:
    """The next zone that is REQUESTED; -1: no reference is left but the worker's, given back."""
    control = mm.hooks.control
    nr_zones = i64(mm.kernel[0]["nr_zones"])
    while True:
        while control[0]["zone"] < nr_zones:
            if is_requested(mm, i64(control[0]["zone"])):
                return i64(control[0]["zone"])
            control[0]["zone"] += 1
        control[0]["zone"] = 0
        found = load_acquire(control, 0, "refcnt")
        requests = i64(0)
        for z in range(nr_zones):
            requests += i64(is_requested(mm, z))
        if found != own and requests == 0:
            # A flag is set before its reference is taken, and cleared by the worker alone: a vCPU
            # died in between, or one after the reference that its rebuilt zone does not know of.
            compare_exchange(control, 0, "refcnt", found, np.int32(own))
        if compare_exchange(control, 0, "refcnt", np.int32(own), np.int32(0)) == own:
            return -1


class BoundaryCycle:
    """One guest's worker.

    fill_zone:   (mm, actor, z, batch) -> blocks in `batch`; 0: none, the zone was left
    drain_zone:  (mm, actor, z, batch, blocks, reported, now_ns) -> blocks filled anew; 0: left
    own:         references that the worker itself holds
    """

    def __init__(
        self,
        parameters: "BoundaryParameters",
        mm: GuestMemory,
        actor: int,
        *,
        fill_zone: Callable[..., int],
        drain_zone: Callable[..., int],
        own: int,
    ) -> None:
        self._mm = mm
        self._actor = actor
        self._fill_zone = fill_zone
        self._drain_zone = drain_zone
        self._own = own
        self._control: npt.NDArray[Any] = mm.hooks.control
        self._batch = np.zeros(parameters.capacity, BATCH)
        control, order = self._control[0], parameters.order
        control["order"] = mm.kernel[0]["pageblock_order"] if order is None else order
        control["high_water"] = parameters.high_water
        control["delay_ns"] = round(parameters.delay_s * 1e9)
        control["keep_watermark"] = parameters.keep_watermark
        self._started = False
        self._working = False
        self._zone = -1
        self._filled = 0

    def step(self, now_s: float) -> Wait | Report:
        """Wait for the delayed work; then report batch after batch until no zone asks."""
        if not self._started:
            self._started = True
            start_up(self._mm, self._actor, round(now_s * 1e9))
        if not self._working:
            due_s = self._due_s()
            if due_s is None or now_s < due_s:
                return Wait(due_s)
            self._working = True
            start_worker(self._mm, self._own)
        while self._filled == 0:
            self._zone = int(next_zone(self._mm, self._own))
            if self._zone < 0:
                self._working = False
                return Wait(self._due_s())
            self._filled = int(self._fill_zone(self._mm, self._actor, self._zone, self._batch))
        return Report(self._batch[: self._filled])

    def _due_s(self) -> float | None:
        due_ns = int(self._control[0]["due_ns"])
        return due_ns / 1e9 if due_ns else None

    def drain(self, reported: bool, now_s: float) -> None:
        """Put the batch back, and fill the next one while the lock is held."""
        self._filled = int(
            self._drain_zone(
                self._mm,
                self._actor,
                self._zone,
                self._batch,
                self._filled,
                reported,
                round(now_s * 1e9),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryParameters:
    """Parameters; defaults are the constants of both series.

    order           the smallest that is reported; None: the guest's pageblock_order
    delay_s         from the first request to the worker's start (HZ / 10)
    capacity        blocks a report
    high_water      raw blocks of one order at which a zone asks for work
    keep_watermark  a repair: leave blocks where they are while the zone would fall below its min
                    watermark, as Linux does from 5.7 on; without it, nothing stops the worker
    """

    order: int | None = None
    delay_s: float = 0.1
    capacity: int = 32
    high_water: int = 32
    keep_watermark: bool = False

    def __post_init__(self) -> None:
        if self.order is not None and not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")
        if not 0 <= self.delay_s < 1e6:
            raise ValueError(f"delay: {self.delay_s} s is not between 0 and 1e6 s")
        if not 1 <= self.capacity <= 1024:
            raise ValueError(f"capacity: {self.capacity} is not one of 1 to 1024")
        if not 1 <= self.high_water <= 1 << 20:
            raise ValueError(f"high_water: {self.high_water} is not one of 1 to {1 << 20}")
