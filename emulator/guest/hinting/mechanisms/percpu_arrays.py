"""Per-CPU arrays: N. N. Lal, "[RFC][Patch v8 0/7] KVM: Guest Free Page Hinting" (Feb 2019).

Every free, of any order, is noted in an array of its vCPU (guest_free_page).  A full array has the
vCPU give its per-CPU lists back to the zones, and is scanned: an entry that lies inside of a free
block becomes that block's head, or goes if the head is in the array already (scan_array), and what
is left moves together (pack_array).  If it is still full, it is ready: pages are walked one by one,
the zone's lock taken for each, free blocks isolated (hinting_fn), all reported in one synchronous
request of addresses and orders, and freed again (hyperlist_ready).  No mark is left on them.

Source: patch 6/7, quoted in M. S. Tsirkin's answer of 5 February 2019, and the file it changes.

Known flaws, visible when run, with the figures that show them:

- Frees are ignored from the moment an array is ready until its report has returned: `ignored_*`.
- No timer: what an idle vCPU noted below the array's size waits for ever, and packing makes it
  wait longer, for an array of whole blocks covers up to 4 GiB: `stranded_*`.
- Blocks of a single page are reported, up to a request for 4 KiB alone (the reviewer's objection):
  `one_page_blocks`, `one_page_reports`.  His answer to it is the parameter `largest_only`.
- The search for a head is linear, for each entry, in the vCPU that frees: `comparisons`.
- The lock is taken for each page: `lock_acquisitions`.
- Entries that are in use again stay, although the patch says that they are removed:
  `fruitless_entries`.  So does a page noted twice that heads a free block both times.
- Page frame 0 marks an empty entry, so that the block at 0 is never reported.
- The list of isolated blocks has as many places as the array, and nobody checks.  Here what does
  not fit stays free: `overruns`, each of which would have been a write behind the list.
- Nothing says that a block was reported before: it is reported anew whenever it is freed anew.

Different from the patch: its threads, one for each vCPU, run on their vCPU and beside each other;
here the guest's kernel serves the arrays one after another, in the order in which they became
ready, so that with several vCPUs an array is ready, and ignores frees, for longer; in virtual time
at least until its vCPU's batch of work is done.  The request is one of page reporting, with the
blocks' addresses and lengths in the ring itself; the patch passed the address of its list, with the
count of entries as the length.  What the guest's kernel frees has an array of its own; in the patch
it is that of the vCPU the kernel runs on.  `put_cpu_var` without its get, at the end of hinting_fn,
has no counterpart.  A block put back is marked as reported, for the emulator's figures alone: the
mechanism does not look at it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import fetch_add, load_acquire, store_release
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
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    MARK_REPORTED,
    MAX_ORDER,
    NO_PAGE,
    NONE,
    PAGE_SIZE,
)
from emulator.guest.mm.lock_kernels import lock_zone, unlock_zone
from emulator.guest.mm.page_alloc_kernels import drain_pcps, zone_of
from emulator.guest.mm.views import GuestMemory

EMPTY: Final = 0  # CAPTURED.pfn: no entry

# One array a vCPU (`kvm_pt`): that vCPU's while ARRAY.full is 0, the hinting task's while it is 1.
CAPTURED: Final = np.dtype([("pfn", "<i8"), ("order", "<i8")], align=True)

# `full` and `index` change hands with the array; the rest is written by the vCPU alone.
ARRAY: Final = np.dtype(
    [
        ("full", "<u4"),
        ("ticket", "<u8"),  # among the arrays that became ready
        ("index", "<i8"),
        ("captured", "<i8"),
        ("ignored", "<i8"),
        ("ignored_pages", "<i8"),
        ("scans", "<i8"),
        ("comparisons", "<i8"),
    ],
    align=True,
)
assert ARRAY.itemsize == 64  # A cache line each.

# `tickets` is written by every vCPU (fetch_add), `enabled`, `entries` and `order_min` once.
CONTROL: Final = np.dtype(
    [
        ("enabled", "<u4"),
        ("entries", "<i8"),
        ("order_min", "<i8"),
        ("tickets", "<u8"),
        # What the hinting task counts.
        ("lock_acquisitions", "<i8"),
        ("fruitless_entries", "<i8"),
        ("isolation_failures", "<i8"),
        ("overruns", "<i8"),
        ("one_page_blocks", "<i8"),
        ("one_page_reports", "<i8"),
    ],
    align=True,
)


@kernel(inner=True)
def _free_block_of(mm: Any, pfn: int) -> int:
    """The head of the free block that `pfn` lies in, or NO_PAGE (get_buddy_page).

    Without the lock it may be wrong in the next instant: who isolates looks again.
    """
    for order in range(MAX_ORDER + 1):
        head = pfn & ~((i64(1) << order) - 1)
        if mm.pages[head]["kind"] == BUDDY and mm.pages[head]["order"] >= order:
            return head
    return NO_PAGE


@kernel(inner=True)
def _scan(mm: Any, cpu: int) -> None:
    """Make entries inside of free blocks those blocks, each of them once (scan_array)."""
    captured = mm.hooks.captured
    entries = i64(mm.hooks.control[0]["entries"])
    first = cpu * entries
    comparisons = i64(0)
    for at in range(first, first + entries):
        pfn = i64(captured[at]["pfn"])
        head = _free_block_of(mm, pfn)
        if head == NO_PAGE or mm.pages[pfn]["kind"] == BUDDY:
            continue
        other = first
        while other < first + entries and captured[other]["pfn"] != head:
            other += 1
        comparisons += other - first + 1
        known = other < first + entries
        captured[at]["pfn"] = EMPTY if known else head
        captured[at]["order"] = i64(mm.pages[head]["order"])
    mm.hooks.arrays[cpu]["scans"] += 1
    mm.hooks.arrays[cpu]["comparisons"] += comparisons


@kernel(inner=True)
def _pack(mm: Any, cpu: int) -> int:
    """Move the entries together; how many there are (pack_array)."""
    captured = mm.hooks.captured
    entries = i64(mm.hooks.control[0]["entries"])
    first = cpu * entries
    kept = first
    for at in range(first, first + entries):
        if captured[at]["pfn"] != EMPTY:
            captured[kept]["pfn"] = captured[at]["pfn"]
            captured[kept]["order"] = captured[at]["order"]
            kept += 1
    for at in range(kept, first + entries):
        captured[at]["pfn"] = EMPTY
    return kept - first


@kernel(inner=True)
def capture_free(mm: Any, cpu: int, pfn: int, order: int) -> None:
    """guest_free_page: note a free; a full array is scanned, and handed over if it stays full."""
    hooks = mm.hooks
    if load_acquire(hooks.control, 0, "enabled") == 0:
        return
    array = hooks.arrays[cpu]
    if load_acquire(hooks.arrays, cpu, "full") != 0:
        array["ignored"] += 1
        array["ignored_pages"] += i64(1) << order
        return
    entries = i64(hooks.control[0]["entries"])
    index = i64(array["index"])
    hooks.captured[cpu * entries + index]["pfn"] = pfn
    hooks.captured[cpu * entries + index]["order"] = order
    array["index"] = index + 1
    array["captured"] += 1
    if index + 1 < entries:
        return
    if cpu < mm.kernel[0]["nr_cpus"]:  # The guest's kernel has no per-CPU lists.
        drain_pcps(mm, cpu)
    _scan(mm, cpu)
    array["index"] = _pack(mm, cpu)
    if array["index"] == entries:
        array["ticket"] = fetch_add(hooks.control, 0, "tickets", np.uint64(1))
        store_release(hooks.arrays, cpu, "full", np.uint32(1))
        store_release(mm.kernel, 0, "doorbell", np.uint32(1))


@with_hooks(page_freed=capture_free)
class PercpuArraysHooks(NamedTuple):
    """What the allocator sees of it."""

    control: npt.NDArray[Any]
    arrays: npt.NDArray[Any]
    captured: npt.NDArray[Any]


@kernel(inner=True)
def _isolate_at(mm: Any, z: int, pfn: int, batch: Any, found: int) -> tuple[int, int]:
    """Isolate the free block that `pfn` lies in: (where to go on, blocks in `batch`)."""
    control = mm.hooks.control[0]
    head, kind, order = i64(pfn), i64(NONE), i64(0)
    # The block that holds the page; `kind` is NONE on all pages of a block but its first.
    for size in range(MAX_ORDER + 1):
        head = pfn & ~((i64(1) << size) - 1)
        kind, order = i64(mm.pages[head]["kind"]), i64(mm.pages[head]["order"])
        if kind != NONE and order >= size:
            break
    after = head + (i64(1) << order)
    if kind == ALLOCATED:
        return after, found  # A compound page, or a page with a reference.
    if kind != BUDDY:
        return pfn + 1, found
    if order < control["order_min"]:
        return after, found
    if found == batch.size:
        control["overruns"] += 1
    elif isolate_free_block(mm, z, head, order):
        batch[found]["pfn"] = head
        batch[found]["order"] = order
        batch[found]["zone"] = z
        found += 1
    else:
        control["isolation_failures"] += 1
    return after, found


@kernel(inner=True)
def _next_full(mm: Any) -> int:
    """The actor whose array has been full for longest, or -1."""
    arrays = mm.hooks.arrays
    chosen = i64(-1)
    for cpu in range(arrays.size):
        if load_acquire(arrays, cpu, "full") != 0:
            if chosen < 0 or arrays[cpu]["ticket"] < arrays[chosen]["ticket"]:
                chosen = i64(cpu)
    return chosen


@kernel
def isolate_captured(mm: Any, actor: int, batch: Any) -> tuple[int, int]:
    """Isolate what is free of the next full array: (its actor, or -1; blocks in `batch`)."""
    control = mm.hooks.control[0]
    found = i64(0)
    cpu = _next_full(mm)
    if cpu < 0:
        return cpu, found
    entries = i64(control["entries"])
    for at in range(cpu * entries, (cpu + 1) * entries):
        entry = mm.hooks.captured[at]
        pfn = i64(entry["pfn"])
        # The order was read without a lock; no page behind the last one is looked at.
        end = min(pfn + (i64(1) << i64(entry["order"])), i64(mm.kernel[0]["nr_pages"]))
        before = found
        while pfn < end:
            z = zone_of(mm, pfn)
            lock_zone(mm, z, actor)
            pfn, found = _isolate_at(mm, z, pfn, batch, found)
            unlock_zone(mm, z, actor)
            control["lock_acquisitions"] += 1
        control["fruitless_entries"] += i64(found == before)
        entry["pfn"] = EMPTY
    return cpu, found


@kernel
def return_isolated(mm: Any, actor: int, cpu: int, batch: Any, count: int, reported: bool) -> None:
    """Free the blocks again, and hand the array back to its vCPU (hyperlist_ready)."""
    control = mm.hooks.control[0]
    for index in range(count):
        pfn, order = i64(batch[index]["pfn"]), i64(batch[index]["order"])
        z = i64(batch[index]["zone"])
        now_ns = lock_zone(mm, z, actor)
        mm.zones[z]["isolated_pages"] -= i64(1) << order
        # As any free, to the head or the tail; the hook is above, so that it is not noted again.
        merged = free_one_block(mm, z, pfn, order, pageblock_type(mm, pfn), FREE_NOTIFYING, now_ns)
        if reported and merged == order:
            mark_reported(mm, z, pfn)
        unlock_zone(mm, z, actor)
        control["one_page_blocks"] += i64(reported and order == 0)
        control["one_page_reports"] += i64(reported and order == 0 and count == 1)
    mm.hooks.arrays[cpu]["index"] = 0
    store_release(mm.hooks.arrays, cpu, "full", np.uint32(0))


class PercpuArraysCycle:
    """What the threads do, for one vCPU after another."""

    def __init__(self, mechanism: "PercpuArrays", mm: GuestMemory, actor: int) -> None:
        self._mm = mm
        self._actor = actor
        self._batch = np.zeros(mechanism.entries, BATCH)
        self._cpu = 0
        self._count = 0
        control = mm.hooks.control[0]
        control["entries"] = mechanism.entries
        control["order_min"] = mechanism.order
        for cpu in range(len(mm.hooks.arrays)):  # All begin empty.
            return_isolated(mm, actor, cpu, self._batch, 0, False)
        control["enabled"] = 1

    def step(self, now_s: float) -> Wait | Report:
        """Serve the array that has been full for longest."""
        cpu, count = isolate_captured(self._mm, self._actor, self._batch)
        if cpu < 0:
            return Wait(None)
        self._cpu, self._count = int(cpu), int(count)
        if count > 0:
            return Report(self._batch[: self._count])
        self.drain(False, now_s)
        return Wait(now_s)  # Nothing of it was free: on to the next, at once.

    def drain(self, reported: bool, now_s: float) -> None:
        """Free the blocks, and let the array fill again."""
        return_isolated(self._mm, self._actor, self._cpu, self._batch, self._count, reported)


@dataclass(frozen=True, slots=True, kw_only=True)
class PercpuArrays:
    """Parameters; `entries` is MAX_FGPT_ENTRIES, of each vCPU's array."""

    name: ClassVar[str] = "percpu_arrays"
    entries: int = 1000
    largest_only: bool = False  # the reviewer's answer: no block below the largest order

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= 4096:
            raise ValueError(f"entries: {self.entries} is not one of 1 to 4096")

    @property
    def capacity(self) -> int:
        """Blocks a report may hold."""
        return self.entries

    @property
    def order(self) -> int:
        """The smallest order that is reported."""
        return MAX_ORDER if self.largest_only else 0

    def rehearsal(self) -> "PercpuArrays":
        """Ready at the first free."""
        return PercpuArrays(entries=1)

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """An array for each vCPU and the guest's kernel, its state, and what the hinting task
        counts."""
        actors = geometry.nr_cpus + 1
        return {
            "control": (CONTROL, 1),
            "arrays": (ARRAY, actors),
            "captured": (CAPTURED, actors * self.entries),
        }

    def hooks(self, arrays: Mapping[str, Any]) -> PercpuArraysHooks:
        """Called as an actor frees a block, before the block is on any list."""
        return PercpuArraysHooks(arrays["control"], arrays["arrays"], arrays["captured"])

    def start(self, mm: GuestMemory, actor: int) -> PercpuArraysCycle:
        """Frees are noted from now on."""
        return PercpuArraysCycle(self, mm, actor)

    def figures(self, mm: GuestMemory) -> dict[str, int | float | None]:
        """Counts over all vCPUs; what is stranded is counted as it is now.

        `stranded_bytes`: free blocks, none of them reported, that entries of arrays lie in.
        """
        control, arrays = mm.hooks.control[0], mm.hooks.arrays
        waiting = mm.hooks.captured["pfn"][mm.hooks.captured["pfn"] != EMPTY]
        return {
            "captured_frees": int(arrays["captured"].sum()),
            "ignored_frees": int(arrays["ignored"].sum()),
            "ignored_bytes": int(arrays["ignored_pages"].sum()) * PAGE_SIZE,
            "stranded_entries": len(waiting),
            "stranded_bytes": free_unreported_pages(mm, waiting) * PAGE_SIZE,
            "one_page_blocks": int(control["one_page_blocks"]),
            "one_page_reports": int(control["one_page_reports"]),
            "fruitless_entries": int(control["fruitless_entries"]),
            "isolation_failures": int(control["isolation_failures"]),
            "overruns": int(control["overruns"]),
            "scans": int(arrays["scans"].sum()),
            "comparisons": int(arrays["comparisons"].sum()),
            "lock_acquisitions": int(control["lock_acquisitions"]),
        }


def free_unreported_pages(mm: GuestMemory, pfns: npt.NDArray[np.int64]) -> int:
    """Pages of the free blocks that these page frames (i8[n]) lie in and that carry no mark."""
    pages = mm.pages
    heads: set[int] = set()
    for order in range(MAX_ORDER + 1):
        at = pfns & -(1 << order)
        block = pages[at]
        holds = (block["kind"] == BUDDY) & (block["order"] >= order)
        heads.update(at[holds & (block["mark"] & MARK_REPORTED == 0)].tolist())
    return sum(1 << int(pages[head]["order"]) for head in heads)
