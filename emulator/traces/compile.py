"""Turn a recorded trace into a program that an allocator can replay.

The page frames of a trace are the traced kernel's; an allocator that replays it hands out its own.
So a program names no page frame but *slots*: `ALLOC` puts a block into a slot, and `FREE` gives
back `1 << order` pages, `offset` pages behind the first page of the block in the slot.  Whoever
replays it keeps an array of `slots` page frames, and needs an allocator that takes back an aligned
part of a block: Linux, too, allocates blocks whose pages are freed one by one (`split_page`,
`alloc_pages_exact`).  A slot is vacant again once all pages of its block are freed, so that there
are no more slots than blocks were ever allocated at once.

A recording begins in the middle: it frees pages that were allocated before.  Such frees are
dropped, or, with `warm`, belong to blocks that whoever replays has to allocate before the start
(`before`).  A recording of a booting kernel also "frees" the memory that boot hands over to the
buddy allocator (`pgdatinit`): with `warm`, that is memory in use until then.

Invariants of a program:

    an ALLOC's slot is vacant;  a FREE's pages are in its slot, and not freed yet
    operations are in the order of the trace and `time_ns` never decreases
    start_pages + allocated - freed == end_pages >= 0
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.traces.layout import (
    ALLOC,
    BEFORE_START,
    NO_SLOT,
    REPLAY_BLOCK,
    REPLAY_COUNTS,
    REPLAY_OPERATION,
    REPLAY_PAGE,
    REPLAY_PAGES_MAX,
    REPLAY_SLOT,
)
from emulator.traces.reader import Trace, TraceError
from emulator.traces.replay_kernels import compile_events


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStatistics:
    """What became of a trace's events.

    Attributes:
        events: of the trace.
        operations: of the program: `allocations + frees`.
        allocations, frees: operations of each kind.
        preexisting_frees: events that free pages which were allocated before the trace began:
            dropped, or, with `warm`, operations on blocks of `before`.
        unmatched_frees: events that free pages which the trace has freed: dropped.  Their
            allocation was lost, or the kernel records none for them (bulk allocations; in our
            recordings of Linux 6.1 most come in fours, as the pages of kernel stacks do).
        double_allocations: events that allocate pages which are allocated: a free was not
            recorded, and comes right before.
        partial_frees: events that free a part of a block, by itself.
        spanning_frees: events that free several blocks, or parts, at once: an operation for each.
        start_pages, peak_pages, end_pages: allocated before the start, at most, and at the end.
        order_max: the largest order of an event.
        span_s: from the first operation's time, 0, to the last one's.
    """

    events: int
    operations: int
    allocations: int
    frees: int
    preexisting_frees: int
    unmatched_frees: int
    double_allocations: int
    partial_frees: int
    spanning_frees: int
    start_pages: int
    peak_pages: int
    end_pages: int
    order_max: int
    span_s: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ReplayProgram:
    """A trace, ready for replay.

    Attributes:
        operations: REPLAY_OPERATION[statistics.operations].  `migratetype` is the traced
            kernel's (0 unmovable, 1 movable, 2 reclaimable, and rarer ones).
        before: REPLAY_BLOCK[n], blocks to allocate before the start, in this order; empty
            unless compiled with `warm`.
        slots: of all operations and blocks; each names one in 0 .. slots - 1.
        cpus: the operations' vCPUs are in 0 .. cpus - 1.
        statistics: what became of the events.
    """

    operations: npt.NDArray[Any]
    before: npt.NDArray[Any]
    slots: int
    cpus: int
    statistics: ReplayStatistics


def compile_replay(trace: Trace, *, cpus: int, warm: bool) -> ReplayProgram:
    """Turn `trace` into a program for `cpus` vCPUs.

    The trace's CPUs, in their order, are dealt to the vCPUs in turn: with fewer vCPUs, each stands
    for several CPUs.

    Args:
        trace: with one event or more.
        cpus: 1 or more.
        warm: whether pages that are freed without having been allocated in the trace are allocated
            before the start (else these frees are dropped).

    Raises:
        ValueError: `cpus` is less than 1 or more than 65536.
        TraceError: the trace's pages are spread too widely.
    """
    if not 1 <= cpus <= 65_536:
        raise ValueError(f"cpus: {cpus}; give 1 to 65536")
    events = trace.events
    order_max = int(events["order"].max())
    event_pages, pages_count = _dense_pages(events, order_max)
    allocations = int(np.count_nonzero(events["kind"] == ALLOC))
    before = np.zeros(events.size - allocations if warm else 0, REPLAY_BLOCK)
    room = events.size
    while True:
        operations = np.zeros(room, REPLAY_OPERATION)
        counts = np.zeros(1, REPLAY_COUNTS)
        counts["vacant_slot"] = NO_SLOT
        compile_events(
            events,
            event_pages,
            _vcpu_of(events, cpus),
            order_max,
            warm,
            np.zeros(pages_count, REPLAY_PAGE),
            np.zeros(allocations, REPLAY_SLOT),
            before,
            operations,
            counts,
        )
        needed = int(counts[0]["operations"])
        if needed <= room:
            break
        room = needed  # Frees of several blocks, and double allocations, take more than one each.
    operations = operations[:needed]
    before = before[: int(counts[0]["before"])]
    _number_slots_before_start(operations, before, int(counts[0]["slots"]))
    return ReplayProgram(
        operations=operations,
        before=before,
        slots=int(counts[0]["slots"]) + before.size,
        cpus=cpus,
        statistics=_statistics(events, operations, counts[0], order_max),
    )


def _dense_pages(events: npt.NDArray[Any], order_max: int) -> tuple[npt.NDArray[np.int64], int]:
    """Number the page frames that lie in the same largest block as any event's, from 0 on.

    Returns int64[events.size], each event's first page, and how many there are.
    """
    shift = np.uint64(order_max)
    regions = events["pfn"] >> shift
    touched = np.unique(regions)
    pages_count = touched.size << order_max
    if pages_count > REPLAY_PAGES_MAX:
        raise TraceError(
            f"a trace whose blocks are spread over {pages_count} page frames; "
            f"give one that touches at most {REPLAY_PAGES_MAX}"
        )
    inside = (events["pfn"] & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.int64)
    return (np.searchsorted(touched, regions) << order_max) + inside, pages_count


def _vcpu_of(events: npt.NDArray[Any], cpus: int) -> npt.NDArray[np.uint16]:
    """The vCPU of each of the trace's CPUs."""
    present = np.bincount(events["cpu"]) > 0
    return ((np.cumsum(present) - 1) % cpus).astype(np.uint16)


def _number_slots_before_start(
    operations: npt.NDArray[Any], before: npt.NDArray[Any], slots: int
) -> None:
    """Give the blocks allocated before the start the slots behind all others."""
    if before.size == 0:
        return
    before["slot"] += slots
    marked = operations["slot"] >= BEFORE_START
    operations["slot"][marked] = (operations["slot"][marked] ^ np.uint32(BEFORE_START)) + slots


def _statistics(
    events: npt.NDArray[Any], operations: npt.NDArray[Any], counts: Any, order_max: int
) -> ReplayStatistics:
    allocations = int(np.count_nonzero(operations["kind"] == ALLOC))
    start_pages = int(counts["before_pages"])
    return ReplayStatistics(
        events=events.size,
        operations=operations.size,
        allocations=allocations,
        frees=operations.size - allocations,
        preexisting_frees=int(counts["preexisting_frees"]),
        unmatched_frees=int(counts["unmatched_frees"]),
        double_allocations=int(counts["double_allocations"]),
        partial_frees=int(counts["partial_frees"]),
        spanning_frees=int(counts["spanning_frees"]),
        start_pages=start_pages,
        peak_pages=start_pages + int(counts["peak_pages"]),
        end_pages=start_pages + int(counts["live_pages"]),
        order_max=order_max,
        span_s=int(operations["time_ns"][-1]) / 1e9 if operations.size else 0.0,
    )
