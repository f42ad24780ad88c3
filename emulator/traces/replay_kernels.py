"""Turn a trace's events into operations on slots: which block does a freed page belong to?

A block stays in its slot from its allocation until its last page is freed; then the slot is used
again.  `pages` tells, for every page frame that the trace touches, whether an allocated block
starts there, and of which order.  When a part of a block is freed, the block is halved until the
part stands for itself, as the buddy allocator does it; its parts keep the slot.
"""

from typing import Any

import numpy as np

from devices.memory.jit import kernel
from emulator.traces.layout import (
    ALLOC,
    BEFORE_START,
    FREE,
    NO_SLOT,
    PAGE_HEAD,
    PAGE_SEEN,
    PAGE_UNSEEN,
)


@kernel
def _emit(
    operations: Any,
    counts: Any,
    time_ns: int,
    cpu: int,
    kind: int,
    slot: int,
    offset: int,
    order: int,
    migratetype: int,
) -> None:
    """Write an operation; without room for it, count it only."""
    n = counts[0]["operations"]
    if n < operations.size:
        operations[n]["time_ns"] = time_ns
        operations[n]["slot"] = slot
        operations[n]["offset"] = offset
        operations[n]["cpu"] = cpu
        operations[n]["kind"] = kind
        operations[n]["order"] = order
        operations[n]["migratetype"] = migratetype
    counts[0]["operations"] = n + 1
    change = np.int64(1) << order
    live = counts[0]["live_pages"] + (change if kind == ALLOC else -change)
    counts[0]["live_pages"] = live
    counts[0]["peak_pages"] = max(live, counts[0]["peak_pages"])


@kernel
def _free_head(
    pages: Any, slots: Any, operations: Any, counts: Any, time_ns: int, cpu: int, page: int
) -> None:
    """Free the block, or the part of one, that starts at `page`."""
    order: Any = np.int64(pages[page]["state"]) - PAGE_HEAD
    slot: Any = np.int64(pages[page]["slot"])
    pages[page]["state"] = PAGE_SEEN
    offset: Any = page - np.int64(slots[slot]["first_page"])
    left: Any = np.int64(slots[slot]["left_pages"]) - (1 << order)
    slots[slot]["left_pages"] = left
    if left == 0:
        slots[slot]["next"] = counts[0]["vacant_slot"]
        counts[0]["vacant_slot"] = slot
    _emit(operations, counts, time_ns, cpu, FREE, slot, offset, order, 0)


@kernel
def _split_around(pages: Any, page: int, order: int, order_max: int) -> bool:
    """Halve the larger block that holds `page`, until a part of `order` starts there.

    False if no larger block holds it.
    """
    for larger in range(order + 1, order_max + 1):
        head = page & ~((1 << larger) - 1)
        if pages[head]["state"] != PAGE_HEAD + larger:
            continue
        slot = pages[head]["slot"]
        for half in range(larger - 1, order - 1, -1):
            upper = head + (1 << half)
            pages[head]["state"] = PAGE_HEAD + half
            pages[upper]["state"] = PAGE_HEAD + half
            pages[upper]["slot"] = slot
            if page >= upper:
                head = upper
        return True
    return False


@kernel
def _free_range(
    pages: Any,
    slots: Any,
    operations: Any,
    counts: Any,
    time_ns: int,
    cpu: int,
    page: int,
    order: int,
) -> tuple[int, bool]:
    """Free what is allocated within the block, and mark all of it seen.

    Returns how many blocks or parts were freed, and whether an earlier event named any page.
    """
    freed = 0
    seen = False
    for at in range(page, page + (1 << order)):
        state = pages[at]["state"]
        if state >= PAGE_HEAD:
            _free_head(pages, slots, operations, counts, time_ns, cpu, at)
            freed += 1
        seen = seen or state != PAGE_UNSEEN
        pages[at]["state"] = PAGE_SEEN
    return freed, seen


@kernel
def _take_slot(slots: Any, counts: Any) -> Any:
    slot: Any = counts[0]["vacant_slot"]
    if slot != NO_SLOT:
        counts[0]["vacant_slot"] = slots[slot]["next"]
    else:
        slot = counts[0]["slots"]
        counts[0]["slots"] = slot + 1
    return slot


@kernel
def _free(
    pages: Any,
    slots: Any,
    before: Any,
    operations: Any,
    counts: Any,
    time_ns: int,
    cpu: int,
    page: int,
    order: int,
    order_max: int,
    warm: bool,
) -> None:
    if pages[page]["state"] == PAGE_HEAD + order or _split_around(pages, page, order, order_max):
        if order < slots[np.int64(pages[page]["slot"])]["order"]:
            counts[0]["partial_frees"] += 1
        _free_head(pages, slots, operations, counts, time_ns, cpu, page)
        return
    freed, seen = _free_range(pages, slots, operations, counts, time_ns, cpu, page, order)
    if freed > 0:
        counts[0]["spanning_frees"] += 1
    elif seen:
        counts[0]["unmatched_frees"] += 1
    else:
        counts[0]["preexisting_frees"] += 1
        if warm:
            n = counts[0]["before"]
            before[n]["slot"] = n
            before[n]["order"] = order
            counts[0]["before"] = n + 1
            counts[0]["before_pages"] += np.int64(1) << order
            _emit(operations, counts, time_ns, cpu, FREE, n + BEFORE_START, 0, order, 0)


@kernel
def compile_events(
    events: Any,
    event_pages: Any,
    vcpu_of: Any,
    order_max: int,
    warm: bool,
    pages: Any,
    slots: Any,
    before: Any,
    operations: Any,
    counts: Any,
) -> None:
    """Turn all events into operations.

    Args:
        events: TRACE_EVENT[n].
        event_pages: int64[n], the index in `pages` of each event's page frame; blocks of up to
            `order_max` are contiguous and aligned there, too.
        vcpu_of: uint16[CPUs of the trace].
        order_max: of all events.
        warm: whether a freed page that no event had named becomes a block in `before`.
        pages: REPLAY_PAGE[], zeros.
        slots: REPLAY_SLOT[at least as many as there are allocations].
        before: REPLAY_BLOCK[at least as many as there are frees, where `warm`], filled.
        operations: REPLAY_OPERATION[], filled as far as it goes.
        counts: REPLAY_COUNTS[1], zeros but for `vacant_slot`: filled.
    """
    first_ns: Any = np.int64(events[0]["time_ns"])
    time_ns: Any = np.int64(0)
    for i in range(events.size):
        time_ns = max(time_ns, np.int64(events[i]["time_ns"]) - first_ns)
        cpu: Any = np.int64(vcpu_of[events[i]["cpu"]])
        order: Any = np.int64(events[i]["order"])
        page: Any = np.int64(event_pages[i])
        if events[i]["kind"] == FREE:
            _free(
                pages,
                slots,
                before,
                operations,
                counts,
                time_ns,
                cpu,
                page,
                order,
                order_max,
                warm,
            )
            continue
        _split_around(pages, page, order, order_max)
        freed, _ = _free_range(pages, slots, operations, counts, time_ns, cpu, page, order)
        if freed > 0:
            counts[0]["double_allocations"] += 1
        slot = _take_slot(slots, counts)
        slots[slot]["first_page"] = page
        slots[slot]["left_pages"] = 1 << order
        slots[slot]["order"] = order
        pages[page]["state"] = PAGE_HEAD + order
        pages[page]["slot"] = slot
        migratetype: Any = np.int64(events[i]["migratetype"])
        _emit(operations, counts, time_ns, cpu, ALLOC, slot, 0, order, migratetype)
