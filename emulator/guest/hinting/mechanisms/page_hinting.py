"""Page hinting: A. Duyck, "[PATCH v2 0/5] mm / virtio: Provide support for page hinting" (2019).

Version 2 of aeration, of 24 July 2019; its letter, and patches 4 and 5.

*Hinted* blocks are those that the host has been told of.  `boundary` tells how they are kept apart,
asked for and worked on, with the same thresholds as in version 1; what this version changed:

    statistics   hinted blocks are counted apart from `free_area`, in an array of their own for
                 each zone (zone->hinted_pages): the line that every free reads is left alone
    batch        a scatterlist, filled as blocks are pulled, and handed to the ring unchanged
    boundaries   set up before the first batch is filled
    put back     a block that merges has lost its hint, and nobody is told: it is raw, and waits
                 for the next request
    worker       holds no reference of its own: it goes on while any zone does, and a request that
                 comes while it works may schedule one start more, which finds nothing to do

Where a summary of the series says that a drain takes a block's order from the scatterlist, the
patch keeps it in the page, as it is kept here.

Known flaws, visible when run: up to 31 raw blocks of an order stay, in each zone, until one more is
freed; what is freed next to a hinted block merges with it, and both are reported again; the worker
goes on without pause while frees keep asking; it pulls down to the zone's last page
(`keep_watermark` repairs that), and what is under way is missing to allocations, up to `capacity`
blocks of 4 MiB; warm blocks go first on every list that already holds hinted ones (see
`boundary`); starts that find nothing, see above.

Two defects on its error paths cannot come up here: a zone whose statistics cannot be allocated
keeps its request, and the worker never ends; and a request without a device leaves RCU's read side
open.  The statistics lie in shared memory from the start (the mail: "when enabled it will
allocate"; the patch, when a zone is first worked on), and the device outlives the hinting task.
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
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.views import GuestMemory

# Written under the lock of their zone; `flags` is read without it, too.
ZONE: Final = np.dtype(
    {"names": ["flags"], "formats": ["<u4"], "offsets": [0], "itemsize": 64}, align=True
)
HINTED_PAGES: Final = np.dtype(  # zone->hinted_pages: blocks of each order; lines of its own
    {"names": ["nr_hinted"], "formats": [("<i8", NR_ORDERS)], "offsets": [0], "itemsize": 128},
    align=True,
)


@kernel(inner=True)
def notify_free(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """page_hinting_notify_free: ask for work at `high_water` blocks of one order without a hint."""
    control = mm.hooks.control
    if load_acquire(control, 0, "enabled") == 0 or order < control[0]["order"]:
        return
    if is_requested(mm, z):
        return
    hinted = i64(mm.hooks.hinted_pages[z]["nr_hinted"][order])
    if i64(mm.zones[z]["nr_free"][order]) < hinted + i64(control[0]["high_water"]):
        return
    request_zone(mm, z, now_ns)


@kernel(inner=True)
def unlink_hinted(mm: Any, z: int, pfn: int, order: int) -> None:
    """clear_page_hinted: whatever leaves its list has no hint."""
    if mm.pages[pfn]["mark"] & MARK_REPORTED:
        unmark_block(mm, z, pfn, order)
        mm.hooks.hinted_pages[z]["nr_hinted"][order] -= 1


@kernel(inner=True)
def forget_hinted(mm: Any, z: int) -> None:
    """A vCPU died changing the zone, and its lists are made anew: nothing is hinted."""
    for order in range(NR_ORDERS):
        mm.hooks.hinted_pages[z]["nr_hinted"][order] = 0
    forget_marks(mm, z)


@with_hooks(
    block_freed=notify_free,
    block_unlinked=unlink_hinted,
    tail_of_list=tail_above_boundary,
    lists_forgotten=forget_hinted,
)
class PageHintingHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    zones: npt.NDArray[Any]
    boundary: npt.NDArray[np.int64]
    hinted_pages: npt.NDArray[Any]


@kernel(inner=True)
def _fill(mm: Any, z: int, scatterlist: Any) -> int:
    """page_hinting_fill: pull blocks into the scatterlist, as many as it holds."""
    for count in range(len(scatterlist)):
        pfn = pull_next(mm, z)
        if pfn == NO_PAGE:
            drop_request(mm, z)
            return count
        scatterlist[count]["pfn"] = pfn
        scatterlist[count]["order"] = i64(mm.pages[pfn]["order"])
        scatterlist[count]["zone"] = z
    return len(scatterlist)


@kernel(inner=True)
def _put_hinted(mm: Any, z: int, pfn: int, reported: bool, now_ns: int) -> None:
    """put_hinted_page: at the boundary, hinted unless it merged; a free is not notified."""
    order = i64(mm.pages[pfn]["order"])
    migratetype = i64(mm.pages[pfn]["mark"]) & MIGRATETYPE_MASK
    merged = put_back(mm, z, pfn, now_ns)
    if reported and merged == order:
        mark_block(mm, z, pfn, order, migratetype)
        mm.hooks.hinted_pages[z]["nr_hinted"][order] += 1


@kernel
def fill_zone(mm: Any, actor: int, z: int, scatterlist: Any) -> int:
    """page_hinting_cycle, up to the first report: blocks to report, or 0 and the zone is left."""
    lock_zone(mm, z, actor)
    activate(mm, z)
    count = _fill(mm, z, scatterlist)
    if count == 0:
        leave_zone(mm, z)
    unlock_zone(mm, z, actor)
    return count


@kernel
def drain_zone(
    mm: Any, actor: int, z: int, scatterlist: Any, count: int, reported: bool, now_ns: int
) -> int:
    """page_hinting_cycle, from one report to the next, or to the zone's end (0)."""
    lock_zone(mm, z, actor)
    for index in range(count):
        _put_hinted(mm, z, i64(scatterlist[index]["pfn"]), reported, now_ns)
    count = i64(0)
    if is_requested(mm, z):
        if reported:
            count = _fill(mm, z, scatterlist)
        else:
            drop_request(mm, z)
    if count == 0:
        leave_zone(mm, z)
    unlock_zone(mm, z, actor)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinting(BoundaryParameters):
    """`BoundaryParameters`, with PAGE_HINTING_MIN_ORDER, _HWM and the device's capacity."""

    name: ClassVar[str] = "page_hinting"

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """Flags of each zone, the boundaries, and, apart, the statistics."""
        return {
            "control": (CONTROL, 1),
            "zones": (ZONE, geometry.nr_zones),
            "boundary": BOUNDARY,
            "hinted_pages": (HINTED_PAGES, geometry.nr_zones),
        }

    def hooks(self, arrays: Mapping[str, Any]) -> PageHintingHooks:
        """Called where a block is freed, leaves its list, or is put at a list's tail."""
        return PageHintingHooks(
            arrays["control"], arrays["zones"], arrays["boundary"], arrays["hinted_pages"]
        )

    def start(self, mm: GuestMemory, actor: int) -> BoundaryCycle:
        """page_hinting_startup, completed by the first step, which requests every zone."""
        return BoundaryCycle(self, mm, actor, fill_zone=fill_zone, drain_zone=drain_zone, own=0)
