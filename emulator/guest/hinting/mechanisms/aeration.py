"""Aeration: A. Duyck, "[PATCH v1 5/6] mm: Add logic for separating aerated pages from raw pages".

June 2019; that patch, and patches 4 and 6 of its series.

*Raw* blocks may hold data; *aerated* ones the host has been told of.  `boundary` tells how they
are kept apart, asked for and worked on; this file holds what version 2, `page_hinting`, changed:

    statistics   `nr_free_aerated` lies in `free_area`, here in the record of the zone's flags
    batch        a list through the pages themselves (page->lru); the device makes the array that
                 goes into the ring from it
    boundaries   set up only when the first batch is put back: while that one is filled and
                 reported, raw blocks may still get behind aerated ones
    put back     a block that merges is raw, and the zone may ask again at once
    worker       holds a reference of its own, so that no second start is scheduled meanwhile

Where a summary of the series says that a merged block is placed as any other, the patch puts it at
the tail, as it does here.

Known flaws, visible when run: up to 31 raw blocks of an order stay, in each zone, until one more is
freed; what is freed next to an aerated block merges with it, and both are reported again; the
worker goes on without pause while frees keep asking; it pulls down to the zone's last page
(`keep_watermark` repairs that), and what is under way is missing to allocations, up to `capacity`
blocks of 4 MiB; warm blocks go first on every list that already holds aerated ones (see
`boundary`); the counter beside the flags, which every free reads, makes a cache line travel (a
reviewer's point, answered in version 2).

Different from the source: the virtio device of patch 6 takes one readable buffer of 64-bit words,
address and order; here ranges go into the reporting queue, as in VIRTIO.  Shutting down, which
polls `refcnt` every 20 ms there, is cancelling the hinting task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import load_acquire
from devices.memory.jit import i64, kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.hinting.mechanisms.boundary import (
    BOUNDARY,
    CONTROL,
    BoundaryCycle,
    BoundaryParameters,
    activate,
    drop_request,
    forget_marks,
    is_active,
    is_requested,
    leave_zone,
    mark_block,
    pull_next,
    put_back,
    request_zone,
    tail_above_boundary,
    unmark_block,
)
from emulator.guest.mm.hook_kernels import with_hooks
from emulator.guest.mm.layout import MARK_REPORTED, MIGRATETYPE_MASK, NO_PAGE, NR_ORDERS
from emulator.guest.mm.list_kernels import list_next
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.views import GuestMemory

# Written under the lock of their zone; `flags` is read without it, too.
ZONE: Final = np.dtype(
    {
        "names": ["flags", "nr_free_aerated"],
        "formats": ["<u4", ("<i8", NR_ORDERS)],
        "offsets": [0, 8],
        "itemsize": 128,
    },
    align=True,
)
# aerator_dev_info.batch, the worker's: isolated blocks, linked through PAGE.next.
BATCH_LIST: Final = np.dtype([("first", "<i8"), ("last", "<i8"), ("warnings", "<i8")], align=True)


@kernel(inner=True)
def notify_free(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """aerator_notify_free: ask for work where `high_water` raw blocks of one order have come up."""
    control = mm.hooks.control
    if load_acquire(control, 0, "enabled") == 0 or order < control[0]["order"]:
        return
    if is_requested(mm, z):
        return
    raw = i64(mm.zones[z]["nr_free"][order]) - i64(mm.hooks.zones[z]["nr_free_aerated"][order])
    if raw < control[0]["high_water"]:
        return
    if request_zone(mm, z, now_ns) and mm.hooks.batch[0]["first"] != NO_PAGE:
        mm.hooks.batch[0]["warnings"] += 1  # WARN_ON: nobody may be at work without a reference.


@kernel(inner=True)
def unlink_aerated(mm: Any, z: int, pfn: int, order: int) -> None:
    """clear_page_aerated: whatever leaves its list is raw."""
    if mm.pages[pfn]["mark"] & MARK_REPORTED:
        unmark_block(mm, z, pfn, order)
        mm.hooks.zones[z]["nr_free_aerated"][order] -= 1


@kernel(inner=True)
def forget_aerated(mm: Any, z: int) -> None:
    """A vCPU died changing the zone, and its lists are made anew: all is raw."""
    for order in range(NR_ORDERS):
        mm.hooks.zones[z]["nr_free_aerated"][order] = 0
    forget_marks(mm, z)


@with_hooks(
    block_freed=notify_free,
    block_unlinked=unlink_aerated,
    tail_of_list=tail_above_boundary,
    lists_forgotten=forget_aerated,
)
class AerationHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    zones: npt.NDArray[Any]
    boundary: npt.NDArray[np.int64]
    batch: npt.NDArray[Any]


@kernel(inner=True)
def _add_to_batch(mm: Any, pfn: int) -> None:
    """list_add_tail."""
    batch = mm.hooks.batch[0]
    if batch["first"] == NO_PAGE:
        batch["first"] = pfn
    else:
        mm.pages[i64(batch["last"])]["next"] = pfn
    batch["last"] = pfn


@kernel(inner=True)
def _take_from_batch(mm: Any) -> int:
    """The first block, taken off, or NO_PAGE."""
    batch = mm.hooks.batch[0]
    pfn = i64(batch["first"])
    if pfn != NO_PAGE:
        batch["first"] = NO_PAGE if pfn == batch["last"] else list_next(mm.pages, pfn)
    return pfn


@kernel(inner=True)
def _fill(mm: Any, z: int, capacity: int) -> int:
    """aerator_fill: pull blocks onto the batch list, as many as a report takes."""
    for count in range(capacity):
        pfn = pull_next(mm, z)
        if pfn == NO_PAGE:
            drop_request(mm, z)
            return count
        _add_to_batch(mm, pfn)
    return capacity


@kernel(inner=True)
def _react(mm: Any, z: int, batch: Any, count: int) -> None:
    """The device's part: from the list, the array that goes into the ring.  No lock is held."""
    pfn = i64(mm.hooks.batch[0]["first"])
    for index in range(count):
        batch[index]["pfn"] = pfn
        batch[index]["order"] = i64(mm.pages[pfn]["order"])
        batch[index]["zone"] = z
        pfn = list_next(mm.pages, pfn)


@kernel(inner=True)
def _put_aerated(mm: Any, z: int, pfn: int, reported: bool, now_ns: int) -> None:
    """put_aeration_page: at the boundary, aerated unless it merged."""
    order = i64(mm.pages[pfn]["order"])
    migratetype = i64(mm.pages[pfn]["mark"]) & MIGRATETYPE_MASK
    merged = put_back(mm, z, pfn, now_ns)
    if not reported:
        return
    if merged != order:
        notify_free(mm, z, pfn, merged, now_ns)
        return
    mark_block(mm, z, pfn, order, migratetype)
    mm.hooks.zones[z]["nr_free_aerated"][order] += 1


@kernel
def fill_zone(mm: Any, actor: int, z: int, batch: Any) -> int:
    """aerator_scrub_zone, up to the first react: blocks in `batch`, or 0 and the zone is left."""
    lock_zone(mm, z, actor)
    count = _fill(mm, z, len(batch))
    if count == 0:
        leave_zone(mm, z)
    unlock_zone(mm, z, actor)
    _react(mm, z, batch, count)
    return count


@kernel
def drain_zone(
    mm: Any, actor: int, z: int, batch: Any, count: int, reported: bool, now_ns: int
) -> int:
    """aerator_scrub_zone, from one react to the next, or to the zone's end (0)."""
    lock_zone(mm, z, actor)
    if not is_active(mm, z):  # aerator_populate_boundaries
        activate(mm, z)
    pfn = _take_from_batch(mm)
    while pfn != NO_PAGE:
        _put_aerated(mm, z, pfn, reported, now_ns)
        pfn = _take_from_batch(mm)
    count = i64(0)
    if is_requested(mm, z):
        if reported:
            count = _fill(mm, z, len(batch))
        else:
            drop_request(mm, z)
    if count == 0:
        leave_zone(mm, z)
    unlock_zone(mm, z, actor)
    _react(mm, z, batch, count)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Aeration(BoundaryParameters):
    """`BoundaryParameters`, with AERATOR_MIN_ORDER, AERATOR_HWM and the device's capacity."""

    name: ClassVar[str] = "aeration"

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """Flags and statistics of each zone, the boundaries, the batch list."""
        return {
            "control": (CONTROL, 1),
            "zones": (ZONE, geometry.nr_zones),
            "boundary": BOUNDARY,
            "batch": (BATCH_LIST, 1),
        }

    def hooks(self, arrays: Mapping[str, Any]) -> AerationHooks:
        """Called where a block is freed, leaves its list, or is put at a list's tail."""
        return AerationHooks(
            arrays["control"], arrays["zones"], arrays["boundary"], arrays["batch"]
        )

    def start(self, mm: GuestMemory, actor: int) -> BoundaryCycle:
        """aerator_startup, completed by the first step, which requests every zone."""
        mm.hooks.batch[0]["first"] = NO_PAGE
        return BoundaryCycle(self, mm, actor, fill_zone=fill_zone, drain_zone=drain_zone, own=1)
