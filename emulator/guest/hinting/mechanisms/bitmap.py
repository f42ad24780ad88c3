"""A bitmap a zone: N. N. Lal, "[RFC][Patch v12 0/2] mm: Support for page reporting" (Aug 2019).

And v10 and v11 before it.

A free that ends in a block of at least `order` sets the bit of the block's head and counts it,
unless the bit is set.  From `threshold` bits in the zone on it schedules a pass, unless one is
scheduled or running (__page_reporting_enqueue).  The pass takes every zone that has reached the
threshold, walks its bits in ascending order, takes the zone's lock for each, isolates what heads a
free block of at least that order, and clears the bit (scan_zone_bitmap).  Every `capacity` blocks,
and what is left at the zone's end, are reported and put back as any free is, but unnoticed
(return_isolated_page).  Bits are not cleared when a block is allocated: they say what *may* be
free.

Source: patch v12 1/2, mm/page_reporting.c.  Where the notes on it and the patch disagree, the patch
is followed: the batch goes back under one hold of the lock, and the migratetype of a block's first
pageblock survives the isolation.

Known flaws, visible when run, with the figures that show them:

- A burst that ends below the threshold waits for ever, in each zone: `stranded_bytes`, `bits_left`.
  `threshold = 1` repairs that, at the price of more passes, if `look_again` repairs the next:
  alone it lets a pass begin with a burst's first block and leaves all behind that one.
- While a pass runs, no free asks for another, and at its end nobody looks.  Bits that were set
  behind it wait for the next free, however many they are: the same figures, with more bits than
  the threshold.  `look_again` repairs that: a pass is followed by another while it is due.
- The bit is cleared after the lock is released.  A block that is freed in between finds its bit
  set, and then loses it: `lost_frees`.  `clear_locked` repairs that (v10 and v11 did so).
- A block that cannot be isolated, for the zone is short, loses its bit too: `isolation_failures`.
- Memory that has been free since boot has no bit: `stranded.unreported_bytes`.
- Bits of blocks that were allocated, or merged into a larger one, are visited: `stale_bits`.
- The lock is taken for each bit: `lock_acquisitions`.
- Nothing says that a block was reported before: when its buddy is freed, or it is itself, all of
  the merged block is reported again.  It shows in what is claimed beyond what returned.
- Blocks of `order` that begin at no multiple of it from the zone's start are never found.

Different from the patch: its counter of set bits is kept as two, of bits set and bits cleared.  A
block put back is marked as reported, for the emulator's figures alone: the mechanism does not look.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import (
    compare_exchange,
    exchange,
    fence,
    fetch_add,
    load_acquire,
    load_relaxed,
    store_release,
)
from devices.memory.jit import i64, kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry, Report, Wait
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.buddy_kernels import (
    FREE_NOTIFYING,
    free_one_block,
    isolate_free_block,
    mark_reported,
    pageblock_type,
)
from emulator.guest.mm.hook_kernels import with_hooks
from emulator.guest.mm.layout import BUDDY, MARK_REPORTED, MAX_ORDER, PAGE_SIZE
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.views import GuestMemory

WORD_BITS: Final = 64

WORD: Final = np.dtype([("bits", "<u8")])  # of a bitmap; changed by compare-exchange

# `bits_set`, `repeats` and `quiet` are written under the zone's lock, `bits_cleared` by the hinting
# task, the rest once, before CONTROL.enabled.
BITMAP: Final = np.dtype(
    {
        "names": ["bits_set", "bits_cleared", "first_word", "nbits", "quiet", "repeats"],
        "formats": ["<u8", "<u8", "<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16, 24, 32, 40],
        "itemsize": 64,
    },
    align=True,
)

# `scheduled` is set by whoever frees (compare-exchange) and reset by the hinting task (`refcnt`).
CONTROL: Final = np.dtype(
    [
        ("scheduled", "<u4"),
        ("enabled", "<u4"),
        ("order", "<i8"),
        ("capacity", "<i8"),
        ("threshold", "<i8"),
        ("clear_locked", "<i8"),
        ("look_again", "<i8"),
        # Where the pass is.
        ("zone", "<i8"),
        ("in_zone", "<i8"),
        ("bit", "<i8"),
        # What it counts.
        ("passes", "<i8"),
        ("lock_acquisitions", "<i8"),
        ("stale_bits", "<i8"),
        ("lost_frees", "<i8"),
        ("isolation_failures", "<i8"),
    ],
    align=True,
)


@kernel(inner=True)
def _exchange_bit(words: Any, at: int, bit: int, on: bool) -> bool:
    """Set or clear bit `bit` of word `at` on; whether it was set."""
    mask = np.uint64(1) << np.uint64(bit)
    old = load_relaxed(words, at, "bits")
    while True:
        new = old | mask if on else old & ~mask
        seen = compare_exchange(words, at, "bits", old, new)
        if seen == old:
            return (old & mask) != np.uint64(0)
        old = seen


@kernel(inner=True)
def change_bit(mm: Any, z: int, bit: int, on: bool) -> bool:
    """test_and_set_bit and test_and_clear_bit in a zone's bitmap."""
    at = i64(mm.hooks.bitmaps[z]["first_word"]) + bit // WORD_BITS
    return _exchange_bit(mm.hooks.words, at, bit % WORD_BITS, on)


@kernel(inner=True)
def _next_set_bit(mm: Any, z: int, bit: int) -> int:
    """The first set bit from `bit` on, or the number of bits (find_next_bit)."""
    first = i64(mm.hooks.bitmaps[z]["first_word"])
    nbits = i64(mm.hooks.bitmaps[z]["nbits"])
    while bit < nbits:
        rest = load_relaxed(mm.hooks.words, first + bit // WORD_BITS, "bits")
        rest = rest >> np.uint64(bit % WORD_BITS)
        if rest & np.uint64(1):
            return bit
        bit = (bit // WORD_BITS + 1) * WORD_BITS if rest == np.uint64(0) else bit + 1
    return nbits


@kernel(inner=True)
def _bits_left(mm: Any, z: int) -> int:
    """How many bits of a zone are set (zone->free_pages)."""
    set_ever = i64(load_relaxed(mm.hooks.bitmaps, z, "bits_set"))
    return set_ever - i64(load_relaxed(mm.hooks.bitmaps, z, "bits_cleared"))


@kernel(inner=True)
def note_free(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """__page_reporting_enqueue: set the block's bit, and schedule a pass if there are enough."""
    hooks = mm.hooks
    control = hooks.control[0]
    if load_acquire(hooks.control, 0, "enabled") == 0 or order < control["order"]:
        return
    bitmap = hooks.bitmaps[z]
    if bitmap["quiet"] != 0:
        return
    bit = (pfn - i64(mm.zones[z]["start_pfn"])) >> i64(control["order"])
    if change_bit(mm, z, bit, True):
        bitmap["repeats"] += 1
    else:
        fetch_add(hooks.bitmaps, z, "bits_set", np.uint64(1))
    if _bits_left(mm, z) < control["threshold"]:
        return
    if compare_exchange(hooks.control, 0, "scheduled", np.uint32(0), np.uint32(1)) == 0:
        store_release(mm.kernel, 0, "doorbell", np.uint32(1))


@with_hooks(block_freed=note_free)
class BitmapHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    bitmaps: npt.NDArray[Any]
    words: npt.NDArray[Any]


@kernel(inner=True)
def _is_reportable(mm: Any, pfn: int) -> bool:
    """Whether `pfn` heads a free block of at least the order that is reported."""
    page = mm.pages[pfn]
    return page["kind"] == BUDDY and page["order"] >= mm.hooks.control[0]["order"]


@kernel(inner=True)
def _take_bit(mm: Any, actor: int, z: int, bit: int, batch: Any, found: int) -> int:
    """Isolate the block of one bit into `batch` if it is free, and clear the bit; blocks found."""
    control = mm.hooks.control[0]
    pfn = i64(mm.zones[z]["start_pfn"]) + (bit << i64(control["order"]))
    lock_zone(mm, z, actor)
    control["lock_acquisitions"] += 1
    was_free = _is_reportable(mm, pfn)
    if was_free:
        order, migratetype = i64(mm.pages[pfn]["order"]), pageblock_type(mm, pfn)
        if isolate_free_block(mm, z, pfn, order):
            mm.pageblocks[pfn >> i64(mm.kernel[0]["pageblock_order"])] = migratetype
            batch[found]["pfn"] = pfn
            batch[found]["order"] = order
            batch[found]["zone"] = z
            found += 1
        else:
            control["isolation_failures"] += 1
    else:
        control["stale_bits"] += 1
    if control["clear_locked"] != 0:
        change_bit(mm, z, bit, False)
    unlock_zone(mm, z, actor)
    if control["clear_locked"] == 0:
        change_bit(mm, z, bit, False)
        if not was_free and _is_reportable(mm, pfn):
            control["lost_frees"] += 1
    fetch_add(mm.hooks.bitmaps, z, "bits_cleared", np.uint64(1))
    return found


@kernel
def fill_batch(mm: Any, actor: int, batch: Any) -> int:
    """Isolate the next blocks of a pass into `batch`; how many, or -1: the pass is over."""
    control = mm.hooks.control[0]
    while control["zone"] < mm.kernel[0]["nr_zones"]:
        z = i64(control["zone"])
        if control["in_zone"] == 0 and _bits_left(mm, z) < control["threshold"]:
            control["zone"] += 1
            continue
        control["in_zone"] = 1
        found = i64(0)
        bit = _next_set_bit(mm, z, i64(control["bit"]))
        while bit < mm.hooks.bitmaps[z]["nbits"]:
            found = _take_bit(mm, actor, z, bit, batch, found)
            control["bit"] = bit + 1
            if found == control["capacity"]:
                return found
            bit = _next_set_bit(mm, z, bit + 1)
        control["zone"] += 1
        control["in_zone"] = 0
        control["bit"] = 0
        if found > 0:
            return found
    control["zone"] = 0
    control["passes"] += 1
    store_release(mm.hooks.control, 0, "scheduled", np.uint32(0))
    if control["look_again"] != 0:
        fence()  # Either a free sees that nothing is scheduled, or its bit is seen here.
        for z in range(i64(mm.kernel[0]["nr_zones"])):
            if _bits_left(mm, z) >= control["threshold"]:
                exchange(mm.hooks.control, 0, "scheduled", np.uint32(1))
    return -1


@kernel
def return_batch(mm: Any, actor: int, batch: Any, count: int, reported: bool) -> None:
    """Free the blocks of one zone again, without setting their bits (return_isolated_page)."""
    z = i64(batch[0]["zone"])
    now_ns = lock_zone(mm, z, actor)
    mm.hooks.bitmaps[z]["quiet"] = 1
    for index in range(count):
        pfn, order = i64(batch[index]["pfn"]), i64(batch[index]["order"])
        mm.zones[z]["isolated_pages"] -= i64(1) << order
        merged = free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
        if reported and merged == order:
            mark_reported(mm, z, pfn)
    mm.hooks.bitmaps[z]["quiet"] = 0
    unlock_zone(mm, z, actor)


class BitmapCycle:
    """One guest's passes."""

    def __init__(self, mechanism: "Bitmap", mm: GuestMemory, actor: int) -> None:
        self._mm = mm
        self._actor = actor
        self._control = mm.hooks.control
        self._batch = np.zeros(mechanism.capacity, BATCH)
        self._count = 0
        control = self._control[0]
        control["order"] = mechanism.order
        control["capacity"] = mechanism.capacity
        threshold = mechanism.threshold
        control["threshold"] = mechanism.capacity if threshold is None else threshold
        control["clear_locked"] = mechanism.clear_locked
        control["look_again"] = mechanism.look_again
        first_word = 0
        for zone, bitmap in zip(mm.zones, mm.hooks.bitmaps, strict=True):
            bitmap["first_word"] = first_word
            bitmap["nbits"] = nbits_of(int(zone["end_pfn"] - zone["start_pfn"]), mechanism.order)
            first_word += -(-int(bitmap["nbits"]) // WORD_BITS)
        # A pass over empty bitmaps, so that all is compiled before the first that matters.
        fill_batch(mm, actor, self._batch)
        self.drain(False, 0.0)
        control["passes"] = 0
        control["enabled"] = 1

    def step(self, now_s: float) -> Wait | Report:
        """Report batch after batch until the pass is over; a work item, so without a delay."""
        if not self._control[0]["scheduled"]:
            return Wait(None)
        self._count = int(fill_batch(self._mm, self._actor, self._batch))
        if self._count > 0:
            return Report(self._batch[: self._count])
        self._count = 0
        return Wait(now_s if self._control[0]["scheduled"] else None)

    def drain(self, reported: bool, now_s: float) -> None:
        """Put the last batch back; the pass goes on, whether it was reported or not."""
        return_batch(self._mm, self._actor, self._batch, self._count, reported)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitmap:
    """Parameters; defaults are PAGE_REPORTING_MIN_ORDER (2 MiB on x86) and _MAX_PAGES."""

    name: ClassVar[str] = "bitmap"
    order: int = MAX_ORDER - 1
    capacity: int = 16
    threshold: int | None = None  # set bits that schedule a pass; None: as many as `capacity`
    clear_locked: bool = False  # clear a bit before the lock is released
    look_again: bool = False  # for bits enough for another pass, when one is over

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")
        if not 1 <= self.capacity <= 1024:
            raise ValueError(f"capacity: {self.capacity} is not one of 1 to 1024")
        if self.threshold is not None and self.threshold < 1:
            raise ValueError(f"threshold: {self.threshold} is not at least 1")

    def rehearsal(self) -> "Bitmap":
        """A pass at the first free."""
        return Bitmap(order=0, threshold=1)

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """The bitmaps of all zones one after another, where each begins, and the pass's state."""
        words = (geometry.nr_pages >> self.order) // WORD_BITS + geometry.nr_zones
        return {
            "control": (CONTROL, 1),
            "bitmaps": (BITMAP, geometry.nr_zones),
            "words": (WORD, words),
        }

    def hooks(self, arrays: Mapping[str, Any]) -> BitmapHooks:
        """Called at the end of every free of a block."""
        return BitmapHooks(arrays["control"], arrays["bitmaps"], arrays["words"])

    def start(self, mm: GuestMemory, actor: int) -> BitmapCycle:
        """Frees set bits from now on."""
        return BitmapCycle(self, mm, actor)

    def figures(self, mm: GuestMemory) -> dict[str, int | float | None]:
        """Counts over all zones; what is stranded is counted as it is now.

        `stranded_bytes`: free blocks, not reported, whose bit is set and waits for the threshold.
        """
        control, bitmaps = mm.hooks.control[0], mm.hooks.bitmaps
        heads = np.concatenate([self._heads_of_set_bits(mm, z) for z in range(len(bitmaps))])
        pages = mm.pages[heads]
        waiting = (pages["kind"] == BUDDY) & (pages["order"] >= self.order)
        waiting &= pages["mark"] & MARK_REPORTED == 0
        stranded = int((1 << pages["order"][waiting].astype(np.int64)).sum())
        return {
            "bits_set": int(bitmaps["bits_set"].sum()),
            "bits_left": len(heads),
            "stranded_bytes": stranded * PAGE_SIZE,
            "stale_bits": int(control["stale_bits"]),
            "lost_frees": int(control["lost_frees"]),
            "isolation_failures": int(control["isolation_failures"]),
            "frees_with_bit_set": int(bitmaps["repeats"].sum()),
            "passes": int(control["passes"]),
            "lock_acquisitions": int(control["lock_acquisitions"]),
            "bitmap_bytes": mm.hooks.words.nbytes,
        }

    def _heads_of_set_bits(self, mm: GuestMemory, z: int) -> npt.NDArray[np.int64]:
        bitmap = mm.hooks.bitmaps[z]
        first, nbits = int(bitmap["first_word"]), int(bitmap["nbits"])
        words = mm.hooks.words["bits"][first : first + -(-nbits // WORD_BITS)]
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        return np.flatnonzero(bits).astype(np.int64) * (1 << self.order) + int(
            mm.zones[z]["start_pfn"]
        )


def nbits_of(pages: int, order: int) -> int:
    """Bits that the bitmap of a zone of so many pages has; the last is never set."""
    return (pages >> order) + 1
