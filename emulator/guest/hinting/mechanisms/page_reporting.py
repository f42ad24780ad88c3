"""Free page reporting, as merged in Linux 5.7 (mm/page_reporting.c of Linux 6.6).

A free that ends in a block of at least `order` asks for a pass, `delay` later.  A pass walks, zone
by zone, the free lists of `order` and above from the head, isolates blocks that are not marked
yet, has them reported `capacity` at a time, and puts them back at the tail, marked unless they
merged.  At most 1/16 of a list, but at least two batches, is reported in one pass; what is left
re-arms the request.

Known flaws, visible when run: blocks below `order` never come back; a zone below its low watermark
plus one batch is skipped and its request forgotten; blocks that merge when put back are reported
twice; there is no age, so memory that is about to be used again is given away, too.

Different from Linux: between the end of one batch and the next of the same list the zone's lock is
released.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import compare_exchange, exchange, load_acquire, store_release
from devices.memory.jit import i64, kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry, Report, Wait
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.buddy_kernels import (
    isolate_free_block,
    mark_reported,
    putback_isolated_block,
    watermark_ok,
)
from emulator.guest.mm.hook_kernels import with_hooks
from emulator.guest.mm.layout import MARK_REPORTED, MAX_ORDER, NR_MIGRATETYPES
from emulator.guest.mm.list_kernels import (
    free_list_sentinel,
    list_next,
    list_rotate_to_front,
)
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.views import GuestMemory

IDLE: Final = 0
REQUESTED: Final = 1
ACTIVE: Final = 2

# `state` is written by whoever frees (exchange, under the zone's lock) and by the hinting task
# (exchange, compare-exchange).  `requested_ns` is written before `state`.  The rest belongs to the
# hinting task.
CONTROL: Final = np.dtype(
    [
        ("state", "<u4"),
        ("order", "<i8"),
        ("capacity", "<i8"),
        ("requested_ns", "<i8"),
        # Where the pass is: zone, list, and whether that list was left to report a full batch.
        ("zone", "<i8"),
        ("in_zone", "<i8"),
        ("list_order", "<i8"),
        ("list_type", "<i8"),
        ("in_list", "<i8"),
        ("budget", "<i8"),
        ("offset", "<i8"),
    ],
    align=True,
)


@kernel(inner=True)
def notify_free(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """page_reporting_notify_free: ask for a pass unless one is asked for already."""
    control = mm.hooks.control
    if order < control[0]["order"]:
        return
    state = load_acquire(control, 0, "state")
    if state == REQUESTED:
        return
    if state == IDLE:
        control[0]["requested_ns"] = now_ns
    if exchange(control, 0, "state", np.uint32(REQUESTED)) == IDLE:
        store_release(mm.kernel, 0, "doorbell", np.uint32(1))


@with_hooks(block_freed=notify_free)
class PageReportingHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]


@kernel(inner=True)
def _walk_list(mm: Any, actor: int, batch: Any, z: int, order: int, migratetype: int) -> bool:
    """page_reporting_cycle: isolate from one list; whether the batch is full."""
    control = mm.hooks.control[0]
    sentinel = free_list_sentinel(mm, z, order, migratetype)
    if list_next(mm.pages, sentinel) == sentinel:
        return False
    lock_zone(mm, z, actor)
    capacity = i64(control["capacity"])
    if control["in_list"] == 0:
        nr_free = i64(mm.zones[z]["nr_free"][order])
        control["budget"] = (nr_free + capacity * 16 - 1) // (capacity * 16)
        control["in_list"] = 1
    full = False
    stopped = i64(sentinel)
    at = list_next(mm.pages, sentinel)
    while at != sentinel:
        after = list_next(mm.pages, at)
        mm.zones[z]["list_steps"] += 1
        if mm.pages[at]["mark"] & MARK_REPORTED == 0:
            if control["budget"] < 0:
                exchange(mm.hooks.control, 0, "state", np.uint32(REQUESTED))
                stopped = at
                break
            if control["offset"] == 0:
                full = True
                stopped = at
                break
            if not isolate_free_block(mm, z, at, order):
                stopped = at
                break
            control["offset"] -= 1
            entry = batch[i64(control["offset"])]
            entry["pfn"] = at
            entry["order"] = order
            entry["zone"] = z
        at = after
    if stopped != sentinel and list_next(mm.pages, sentinel) != stopped:
        list_rotate_to_front(mm.pages, sentinel, stopped)
    unlock_zone(mm, z, actor)
    return full


@kernel
def begin_pass(mm: Any) -> None:
    """page_reporting_process: start with the first zone."""
    control = mm.hooks.control[0]
    exchange(mm.hooks.control, 0, "state", np.uint32(ACTIVE))
    control["zone"] = 0
    control["in_zone"] = 0
    control["offset"] = control["capacity"]


@kernel
def fill_batch(mm: Any, actor: int, batch: Any) -> int:
    """Isolate blocks into `batch[offset:]`, filled from its end; the offset, or -1: pass over."""
    control = mm.hooks.control[0]
    capacity = i64(control["capacity"])
    while control["zone"] < mm.kernel[0]["nr_zones"]:
        z = i64(control["zone"])
        if control["in_zone"] == 0:
            gate = i64(mm.zones[z]["watermark_low"]) + i64(mm.zones[z]["watermark_boost"])
            gate += capacity << i64(control["order"])
            if not watermark_ok(mm, z, 0, gate):
                control["zone"] += 1
                continue
            control["in_zone"] = 1
            control["list_order"] = control["order"]
            control["list_type"] = 0
            control["in_list"] = 0
        while control["list_order"] <= MAX_ORDER:
            order, migratetype = i64(control["list_order"]), i64(control["list_type"])
            if _walk_list(mm, actor, batch, z, order, migratetype):
                return 0
            control["in_list"] = 0
            control["list_type"] += 1
            if control["list_type"] == NR_MIGRATETYPES:
                control["list_type"] = 0
                control["list_order"] += 1
        control["zone"] += 1
        control["in_zone"] = 0
        if control["offset"] < capacity:
            return i64(control["offset"])
    return -1


@kernel
def drain_batch(mm: Any, actor: int, batch: Any, reported: bool, now_ns: int) -> None:
    """page_reporting_drain: put the blocks back, marked if they were reported and did not merge."""
    control = mm.hooks.control[0]
    capacity = i64(control["capacity"])
    first = i64(control["offset"])
    z = i64(batch[first]["zone"])
    lock_zone(mm, z, actor)
    for index in range(first, capacity):
        pfn, order = i64(batch[index]["pfn"]), i64(batch[index]["order"])
        merged = putback_isolated_block(mm, z, pfn, order, now_ns)
        if reported and merged == order:
            mark_reported(mm, z, pfn)
    unlock_zone(mm, z, actor)
    control["offset"] = capacity
    control["budget"] -= 1


@kernel
def end_pass(mm: Any) -> bool:
    """Whether a free asked for another pass meanwhile."""
    return compare_exchange(mm.hooks.control, 0, "state", np.uint32(ACTIVE), np.uint32(IDLE)) != (
        ACTIVE
    )


class PageReportingCycle:
    """One guest's passes."""

    def __init__(self, mechanism: "PageReporting", mm: GuestMemory, actor: int) -> None:
        self._mm = mm
        self._actor = actor
        self._delay_s = mechanism.delay_s
        self._control = mm.hooks.control
        self._batch = np.zeros(mechanism.capacity, BATCH)
        control = self._control[0]
        order = mechanism.order
        control["order"] = mm.kernel[0]["pageblock_order"] if order is None else order
        control["capacity"] = mechanism.capacity
        control["offset"] = mechanism.capacity
        # Registering requests a first pass even with no free.
        control["state"] = REQUESTED
        self._due_s: float | None = None
        self._registered = False
        self._in_pass = False

    def step(self, now_s: float) -> Wait | Report:
        """Wait out the delay, then report batch after batch until the pass is over."""
        if not self._in_pass:
            due_s = self._when_due(now_s)
            if due_s is None or now_s < due_s:
                return Wait(due_s)
            begin_pass(self._mm)
            self._in_pass = True
        offset = fill_batch(self._mm, self._actor, self._batch)
        if offset >= 0:
            return Report(self._batch[offset:])
        self._in_pass = False
        self._due_s = now_s + self._delay_s if end_pass(self._mm) else None
        return Wait(self._due_s)

    def _when_due(self, now_s: float) -> float | None:
        if not self._registered:
            self._registered = True
            self._due_s = now_s + self._delay_s
        elif self._due_s is None and self._control[0]["state"] == REQUESTED:
            self._due_s = self._control[0]["requested_ns"] / 1e9 + self._delay_s
        return self._due_s

    def drain(self, reported: bool, now_s: float) -> None:
        """Put the last batch back.  A failed report ends the pass, as in Linux."""
        drain_batch(self._mm, self._actor, self._batch, reported, int(now_s * 1e9))
        if not reported:
            self._in_pass = False
            self._due_s = now_s + self._delay_s if end_pass(self._mm) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageReporting:
    """Parameters; defaults are PAGE_REPORTING_CAPACITY, _DELAY and pageblock_order."""

    name: ClassVar[str] = "page_reporting"
    order: int | None = None  # None: the guest's pageblock_order
    delay_s: float = 2.0
    capacity: int = 32

    def __post_init__(self) -> None:
        if self.order is not None and not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order {self.order} is not one of 0 to {MAX_ORDER}")
        if not 0 <= self.delay_s < 1e6:
            raise ValueError(f"delay {self.delay_s} s is not between 0 and 1e6 s")
        if not 1 <= self.capacity <= 1024:
            raise ValueError(f"capacity {self.capacity} is not one of 1 to 1024")

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """The state that frees and the hinting task share."""
        return {"control": (CONTROL, 1)}

    def hooks(self, arrays: Mapping[str, Any]) -> PageReportingHooks:
        """Called at the end of every free of a block."""
        return PageReportingHooks(arrays["control"])

    def start(self, mm: GuestMemory, actor: int) -> PageReportingCycle:
        """Register: the first pass is due one delay from now."""
        return PageReportingCycle(self, mm, actor)
