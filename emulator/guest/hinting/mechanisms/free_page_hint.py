"""Free page hints: the host asks which memory need not be migrated (W. Wang, Linux 4.20).

VIRTIO_BALLOON_F_FREE_PAGE_HINT, drivers/virtio/virtio_balloon.c of Linux 6.6.  The host names a
round by an id; the guest takes its largest free blocks one by one, as long as the zone stays above
its low watermark, sends each as a buffer, and then STOP.  It does not wait for the host, and keeps
the blocks until the host says DONE.  An allocation that would fail takes a block back (the
driver's shrinker), the one that was hinted last.

The race: "it is a hint", so Linux takes blocks back that the host has not handled yet.  What is
written to such a block before the host clears its bit in the dirty log is not sent, and is lost
when the guest goes on at its destination; the oracle counts it.  `wait_for_ack` takes back only
blocks whose buffers the host has used.

Known flaws, visible when run: it takes nearly all free memory at once, so that allocations fail or
have to take it back; nothing comes back to the host but what is not sent; only for migration.

Different from Linux: where the ring is full, Linux allocates and frees until an entry is used, and
here the task waits; one block is taken back at a time, and not 256 pages' worth of blocks; where
`order` is not the largest, larger blocks are not split for it, and are not hinted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import compare_exchange, load_acquire, store_release
from devices.memory.jit import i64, kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.hinting.free_page_task import Block
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    free_one_block,
    isolate_free_block,
    pageblock_type,
    watermark_ok,
)
from emulator.guest.mm.hook_kernels import with_hooks
from emulator.guest.mm.layout import MAX_ORDER, NR_MIGRATETYPES, PAGE_SHIFT
from emulator.guest.mm.list_kernels import free_list_sentinel, list_next
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.page_alloc_kernels import zone_of
from emulator.guest.mm.views import GuestMemory

EMPTY: Final = 0
HELD: Final = 1
BUSY: Final = 2  # being given back

_NO_SLOT: Final = -1
_TAKES_MAX: Final = 64  # by one allocation

# Blocks that the guest's kernel has taken.  `state` changes by compare-exchange: from HELD to BUSY
# by whoever gives the block back, a vCPU or the guest's kernel, which alone fills EMPTY ones.
# `handled` is written by the guest's kernel (release): 1 when the host has used the buffer.  Until
# then the place is not filled again.
HELD_BLOCK: Final = np.dtype([("state", "<u4"), ("handled", "<u4"), ("pfn", "<i8")], align=True)

CONTROL: Final = np.dtype([("order", "<i8"), ("wait_for_ack", "<i8"), ("used", "<i8")], align=True)


@kernel(inner=True)
def _give_back(mm: Any, actor: int, slot: int, handled_only: bool) -> bool:
    """Free one held block; False: it is not held, or the host has not handled it yet."""
    held = mm.hooks.held
    if handled_only and load_acquire(held, slot, "handled") == 0:
        return False
    if compare_exchange(held, slot, "state", np.uint32(HELD), np.uint32(BUSY)) != HELD:
        return False
    if handled_only and load_acquire(held, slot, "handled") == 0:  # Another block by now.
        store_release(held, slot, "state", np.uint32(HELD))
        return False
    pfn = i64(held[slot]["pfn"])
    order = i64(mm.hooks.control[0]["order"])
    z = zone_of(mm, pfn)
    now_ns = lock_zone(mm, z, actor)
    mm.zones[z]["isolated_pages"] -= 1 << order
    free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
    unlock_zone(mm, z, actor)
    store_release(held, slot, "state", np.uint32(EMPTY))
    return True


@kernel(inner=True)
def take_back(mm: Any, cpu: int, order: int, attempt: int) -> bool:
    """The shrinker: give one held block back to an allocation that would fail."""
    if attempt >= _TAKES_MAX:
        return False
    control = mm.hooks.control[0]
    used = i64(control["used"])
    for index in range(used):
        if _give_back(mm, cpu, used - 1 - index, control["wait_for_ack"] != 0):
            return True
    return False


@with_hooks(before_failing=take_back)
class FreePageHintHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    held: npt.NDArray[Any]


@kernel(inner=True)
def _isolate_one(mm: Any, actor: int, z: int) -> int:
    """A free block of the order that is hinted, or -1: there is none, or the zone is short."""
    order = i64(mm.hooks.control[0]["order"])
    found = i64(-1)
    lock_zone(mm, z, actor)
    mark = i64(mm.zones[z]["watermark_low"]) + (1 << order)
    if mm.zones[z]["nr_free"][order] > 0 and watermark_ok(mm, z, 0, mark):
        for migratetype in range(NR_MIGRATETYPES):
            sentinel = free_list_sentinel(mm, z, order, migratetype)
            pfn = list_next(mm.pages, sentinel)
            if pfn != sentinel and isolate_free_block(mm, z, pfn, order):
                found = pfn
                break
    unlock_zone(mm, z, actor)
    return found


@kernel
def take_block(mm: Any, actor: int) -> int:
    """Hold one more block; its place in the table, or -1."""
    held, control = mm.hooks.held, mm.hooks.control[0]
    slot = i64(_NO_SLOT)
    for index in range(len(held)):
        empty = load_acquire(held, index, "state") == EMPTY
        if empty and (index >= control["used"] or held[index]["handled"] != 0):
            slot = index
            break
    if slot == _NO_SLOT:
        return _NO_SLOT
    for z in range(i64(mm.kernel[0]["nr_zones"])):
        pfn = _isolate_one(mm, actor, z)
        if pfn >= 0:
            held[slot]["pfn"] = pfn
            store_release(held, slot, "handled", np.uint32(0))
            control["used"] = max(i64(control["used"]), slot + 1)
            store_release(held, slot, "state", np.uint32(HELD))
            return slot
    return _NO_SLOT


@kernel
def note_handled(mm: Any, slot: int) -> None:
    """The host has used this block's buffer."""
    store_release(mm.hooks.held, slot, "handled", np.uint32(1))


@kernel
def give_all_back(mm: Any, actor: int) -> None:
    """DONE: free every block that is still held."""
    for slot in range(i64(mm.hooks.control[0]["used"])):
        _give_back(mm, actor, slot, False)


class FreePageHintCycle:
    """What the task does to the guest's memory when the host asks."""

    def __init__(self, mechanism: "FreePageHint", mm: GuestMemory, actor: int) -> None:
        self._mm = mm
        self._actor = actor
        self._order = mechanism.order
        control = mm.hooks.control[0]
        control["order"] = mechanism.order
        control["wait_for_ack"] = mechanism.wait_for_ack

    def take(self) -> Block | None:
        """Hold one more block of free memory, or None."""
        slot = int(take_block(self._mm, self._actor))
        if slot == _NO_SLOT:
            return None
        pfn = int(self._mm.hooks.held[slot]["pfn"])
        return Block(slot, pfn << PAGE_SHIFT, 1 << (self._order + PAGE_SHIFT))

    def acknowledge(self, slot: int) -> int:
        """The host has handled this block; returns its order."""
        note_handled(self._mm, slot)
        return self._order

    def give_all_back(self) -> None:
        """The host has no more use for any of them."""
        give_all_back(self._mm, self._actor)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePageHint:
    """Parameters; defaults are VIRTIO_BALLOON_HINT_BLOCK_ORDER and what Linux does."""

    name: ClassVar[str] = "free_page_hint"
    capacity: ClassVar[int] = 128  # entries of the ring
    free_page_hint: ClassVar[bool] = True  # It has the queue of that feature.
    order: int = MAX_ORDER
    wait_for_ack: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """The blocks that are held; as many as there can be, and as many again in the ring."""
        blocks = geometry.nr_pages >> self.order
        return {"control": (CONTROL, 1), "held": (HELD_BLOCK, 2 * blocks + 1)}

    def hooks(self, arrays: Mapping[str, Any]) -> FreePageHintHooks:
        """Called by allocations that would fail."""
        return FreePageHintHooks(arrays["control"], arrays["held"])

    def start(self, mm: GuestMemory, actor: int) -> Any:
        """A `FreePageHintCycle`, for `free_page_task`: it holds nothing until the host asks."""
        return FreePageHintCycle(self, mm, actor)
