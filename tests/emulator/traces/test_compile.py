"""Programs against a model that knows only which page frames are allocated."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.traces.compile import ReplayProgram, compile_replay
from emulator.traces.layout import ALLOC, FREE
from emulator.traces.reader import TraceError
from tests.emulator.traces.printed import Event, trace_of


def alloc(pfn: int, order: int = 0, *, time_ns: int = 0, cpu: int = 0) -> Event:
    return Event(time_ns, pfn, cpu, ALLOC, order, 1)


def free(pfn: int, order: int = 0, *, time_ns: int = 0, cpu: int = 0) -> Event:
    return Event(time_ns, pfn, cpu, FREE, order, 0)


@dataclass
class Model:
    """The trace's own page frames: sets of pfns."""

    live: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    before: list[Event] = field(default_factory=list)
    after_allocations: list[set[int]] = field(default_factory=list)

    def follow(self, events: list[Event]) -> None:
        for event in events:
            pages = set(range(event.pfn, event.pfn + (1 << event.order)))
            if event.kind == ALLOC:
                self.live |= pages
                self.after_allocations.append(set(self.live))
            else:
                if not pages & self.seen:
                    self.before.append(event)
                self.live -= pages
            self.seen |= pages


def pages_of(pfn: int, order: int) -> set[int]:
    return set(range(pfn, pfn + (1 << order)))


def replay(program: ReplayProgram, events: list[Event], model: Model) -> set[int]:
    """Replay on the trace's own page frames, checking the program's invariants on the way.

    Allocations are never dropped, so the n-th one of the program is the n-th one of the trace.
    """
    first_pfns: dict[int, int] = {}
    in_slot: dict[int, set[int]] = {}
    for block, event in zip(program.before.tolist(), model.before, strict=False):
        slot, order = block
        assert (slot not in in_slot, order) == (True, event.order)
        first_pfns[slot], in_slot[slot] = event.pfn, pages_of(event.pfn, order)
    unreturned = model.before[: program.before.size]
    waiting = {p for e in unreturned for p in pages_of(e.pfn, e.order)}
    assert program.statistics.start_pages == len(waiting)
    allocated = iter([event for event in events if event.kind == ALLOC])
    states = iter(model.after_allocations)
    now_ns = peak = 0
    peak = len(waiting)
    for time_ns, slot, offset, cpu, kind, order, migratetype, _ in program.operations.tolist():
        assert now_ns <= time_ns and cpu < program.cpus and slot < program.slots
        now_ns = time_ns
        held = in_slot.setdefault(slot, set())
        if kind == ALLOC:
            event = next(allocated)
            assert not held and offset == 0
            assert (order, migratetype) == (event.order, event.migratetype)
            first_pfns[slot] = event.pfn
            held |= pages_of(event.pfn, order)
            live = set().union(*in_slot.values())
            assert live - waiting == next(states)
        else:
            freed = pages_of(first_pfns[slot] + offset, order)
            assert freed <= held and offset % (1 << order) == 0
            held -= freed
            if slot >= program.slots - program.before.size:
                waiting -= freed
        peak = max(peak, sum(map(len, in_slot.values())))
    assert next(allocated, None) is None
    assert program.statistics.peak_pages == peak
    return set().union(*in_slot.values())


def check(events: list[Event], *, cpus: int = 2, warm: bool = False) -> ReplayProgram:
    model = Model()
    model.follow(events)
    program = compile_replay(trace_of(events), cpus=cpus, warm=warm)
    seen = program.statistics
    assert replay(program, events, model) == model.live
    assert seen.end_pages == len(model.live)
    assert seen.preexisting_frees == len(model.before)
    assert program.before.size == (len(model.before) if warm else 0)
    assert (seen.operations, seen.events) == (program.operations.size, len(events))
    return program


def operations(program: ReplayProgram) -> list[tuple[int, int, int, int]]:
    return [(o["kind"], o["slot"], o["offset"], o["order"]) for o in program.operations]


def test_a_slot_is_used_again_once_its_block_is_free() -> None:
    program = check([alloc(8), alloc(9), free(8), alloc(16, 4), free(16, 4), free(9)])
    assert operations(program) == [
        (ALLOC, 0, 0, 0),
        (ALLOC, 1, 0, 0),
        (FREE, 0, 0, 0),
        (ALLOC, 0, 0, 4),
        (FREE, 0, 0, 4),
        (FREE, 1, 0, 0),
    ]
    assert (program.slots, program.statistics.peak_pages) == (2, 17)


def test_pages_of_a_block_may_be_freed_one_by_one() -> None:
    program = check([alloc(16, 2), free(17), free(16), alloc(16), free(18, 1), free(16)])
    assert operations(program) == [
        (ALLOC, 0, 0, 2),
        (FREE, 0, 1, 0),
        (FREE, 0, 0, 0),
        (ALLOC, 1, 0, 0),
        (FREE, 0, 2, 1),
        (FREE, 1, 0, 0),
    ]
    assert program.statistics.partial_frees == 3
    assert program.statistics.end_pages == 0


def test_several_blocks_may_be_freed_at_once() -> None:
    program = check([alloc(16), alloc(18, 1), free(16, 2)])
    assert operations(program)[2:] == [(FREE, 0, 0, 0), (FREE, 1, 0, 1)]
    assert program.statistics.spanning_frees == 1


def test_more_operations_than_events_fit() -> None:
    program = check([*(alloc(pfn) for pfn in range(64)), free(0, 6)])
    assert (program.statistics.events, program.statistics.operations) == (65, 128)


@pytest.mark.parametrize(
    ("held", "again", "freed"),
    [
        (alloc(16, 2), alloc(16, 2), [(0, 2)]),
        (alloc(16, 2), alloc(17), [(1, 0)]),
        (alloc(17), alloc(16, 2), [(0, 0)]),
    ],
)
def test_what_is_allocated_twice_is_freed_before(
    held: Event, again: Event, freed: list[tuple[int, int]]
) -> None:
    program = check([held, again])
    assert [(offset, order) for k, _, offset, order in operations(program) if k == FREE] == freed
    assert program.statistics.double_allocations == 1


def test_frees_of_older_pages_are_dropped_or_allocated_before_the_start() -> None:
    events = [alloc(1), free(32, 3), free(1), free(32, 3), alloc(40), free(64)]
    cold = check(events)
    assert (cold.statistics.preexisting_frees, cold.statistics.unmatched_frees) == (2, 1)
    assert (cold.statistics.frees, cold.before.size, cold.slots) == (1, 0, 1)
    warm = check(events, warm=True)
    assert warm.before.tolist() == [(1, 3), (2, 0)]
    assert operations(warm)[1] == (FREE, 1, 0, 3)
    assert (warm.statistics.start_pages, warm.statistics.peak_pages) == (9, 10)
    assert (warm.statistics.frees, warm.statistics.unmatched_frees) == (3, 1)


def test_times_are_relative_and_never_go_back() -> None:
    times = (5000, 7000, 6000, 9000)
    program = check([alloc(i, time_ns=t) for i, t in enumerate(times)])
    assert program.operations["time_ns"].tolist() == [0, 2000, 2000, 4000]
    assert program.statistics.span_s == 4e-6


def test_cpus_are_dealt_to_vcpus_in_turn() -> None:
    events = [alloc(i, cpu=cpu) for i, cpu in enumerate((0, 64, 7, 63, 64))]
    assert check(events, cpus=2).operations["cpu"].tolist() == [0, 1, 1, 0, 1]
    assert check(events, cpus=8).operations["cpu"].tolist() == [0, 3, 1, 2, 3]


def test_scattered_page_frames_take_no_more_than_their_blocks() -> None:
    far = 1 << 39
    program = check([alloc(far, 10), alloc(0), free(far, 10), alloc(far >> 3, 4)])
    assert program.statistics.order_max == 10


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(ValueError, match="cpus: 0; give 1 to 65536"):
        compile_replay(trace_of([alloc(1)]), cpus=0, warm=False)
    spread = [alloc(i << 16, 16) for i in range((1 << 14) + 1)]
    with pytest.raises(TraceError, match="touches at most 1073741824"):
        compile_replay(trace_of(spread), cpus=1, warm=False)


EVENTS = st.lists(
    st.builds(
        lambda page, order, kind, cpu, time_ns: Event(
            time_ns, page >> order << order, cpu, kind, order, 0 if kind == FREE else 1
        ),
        st.integers(0, 31),
        st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
        st.sampled_from([ALLOC, FREE]),
        st.integers(0, 3),
        st.integers(0, 1000),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, cpus=st.integers(1, 4), warm=st.booleans())
def test_programs_do_what_the_trace_did(events: list[Event], cpus: int, warm: bool) -> None:
    check(events, cpus=cpus, warm=warm)
