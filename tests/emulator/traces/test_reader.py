"""Every shape that a line of a trace may have, and what is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.traces.layout import ALLOC, FREE, LINE_BYTES_MAX, PFN_MAX
from emulator.traces.reader import Trace, TraceError, TraceStatistics, read_trace
from tests.emulator.traces.printed import (
    FTRACE_HEADER,
    Event,
    ftrace,
    perf,
    text_of,
    trace_cmd,
)

ALLOCATED = Event(1_409_149_175_000, 0x12EE98, 1, ALLOC, 3, 1)
FREED = Event(1_409_149_177_000, 0x12EE98, 0, FREE, 3, 0)
BOTH = [ALLOCATED, FREED]


def read(tmp_path: Path, text: bytes | str, **options: Any) -> Trace:
    path = tmp_path / "trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_trace(path, **options)


def events_of(trace: Trace) -> list[Event]:
    return [Event(*record[:6]) for record in trace.events.tolist()]


def assert_each_line_counted_once(seen: TraceStatistics) -> None:
    assert seen.lines == (
        seen.events
        + seen.frees_batched
        + seen.other_events
        + seen.failed_allocations
        + seen.lost_gaps
        + seen.comment_lines
        + seen.unreadable_lines
        + seen.pfns_beyond
    )
    assert seen.events == seen.allocations + seen.frees


FORMATS: list[tuple[str, str, Callable[[Event], str]]] = [
    ("ftrace", FTRACE_HEADER, ftrace),
    ("ftrace", "", ftrace),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, flags="d..1")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, flags="")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, flags="dNh1.")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, decimal=True)),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, tgid="(  12181) ")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, tgid="(-------) ")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, comm="<...>")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, comm="a b-1 [2] 3: x")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, comm="kworker/0:1H-kb")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e, comm="\u00e9t\u00e9 12: -")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e).replace("GFP_HIGHUSER_MOVABLE", "0x140dca")),
    ("ftrace", FTRACE_HEADER, lambda e: ftrace(e).replace("\n", "\r\n")),
    ("trace-cmd report", "cpus=2\n", trace_cmd),
    ("trace-cmd report", "version = 6\nCPU 1 is empty\ncpus=2\n", trace_cmd),
    ("trace-cmd report", "cpus=2\n", lambda e: trace_cmd(e, flags="..... ")),
    ("trace-cmd report", "cpus=2\n", lambda e: trace_cmd(e, digits=9)),
    ("perf script", "", perf),
    ("perf script", "# ========\n# captured on    : now\n#\n", perf),
    ("perf script", "", lambda e: perf(e, digits=9)),
    ("perf script", "", lambda e: perf(e, pid="13361/13362")),
    ("perf script", "", lambda e: perf(e, comm=":-1", pid="-1")),
    ("perf script", "", lambda e: perf(e, comm="Web Content 2")),
    ("perf script", "", lambda e: perf(e) + "\tffffffff8127e7b5 get_page+0x1 ([k])\n\n"),
]


@pytest.mark.parametrize("index", range(len(FORMATS)))
def test_every_shape_of_a_line_reads_the_same(tmp_path: Path, index: int) -> None:
    name, header, line = FORMATS[index]
    trace = read(tmp_path, text_of(BOTH, line, header))
    seen = trace.statistics
    assert events_of(trace) == BOTH
    assert seen.format == name
    assert (seen.allocations, seen.frees, seen.unreadable_lines) == (1, 1, 0)
    assert (seen.cpus, seen.span_s, seen.pfn_max) == (2, 2e-6, 0x12EE9F)
    assert (seen.truncated, seen.compression, seen.integer_times) == (False, None, 0)
    assert_each_line_counted_once(seen)


def test_an_integer_clock_is_read_as_nanoseconds_and_counted(tmp_path: Path) -> None:
    line = "  bash-1  [003] .....  123456789012: mm_page_free: page=0 pfn=0x10 order=0\n"
    trace = read(tmp_path, line)
    assert events_of(trace) == [Event(123_456_789_012, 16, 3, FREE, 0, 0)]
    assert trace.statistics.integer_times == 1


def test_other_events_are_dropped_and_counted(tmp_path: Path) -> None:
    stamp = "  bash-1  [000] d..1.  1.000000: "
    text = FTRACE_HEADER + "".join(
        stamp + rest + "\n"
        for rest in (
            "mm_page_free_batched: page=00000000d04468a6 pfn=0x10 order=0",
            "mm_page_alloc_zone_locked: page=0 pfn=0x10 order=0 migratetype=1 percpu_refill=0",
            "mm_page_pcpu_drain: page=00000000d04468a6 pfn=0x10 order=0 migratetype=1",
            "mm_page_alloc_extfrag: page=0 pfn=0x10 alloc_order=0 fallback_order=9",
            "sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b",
            "mm_page_alloc: page=0000000000000000 pfn=0x0 order=9 migratetype=1 gfp_flags=0",
            "mm_page_alloc: page=          (null) pfn=0 order=9 migratetype=1 gfp_flags=0",
            "mm_page_alloc: page=(nil) pfn=0xffffffffffffffff order=9 migratetype=1 gfp_flags=0",
            "mm_page_alloc: page=(nil) pfn=18446744073709551615 order=9 migratetype=1 gfp_flags=0",
            "mm_page_free: page=00000000d04468a6 pfn=0x10 order=0",
        )
    )
    seen = read(tmp_path, text).statistics
    assert (seen.events, seen.frees) == (1, 1)
    assert seen.frees_batched == 1
    assert seen.other_events == 4
    assert seen.failed_allocations == 4
    assert_each_line_counted_once(seen)


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("CPU:1 [LOST 1234 EVENTS]\n", 1234),
        ("CPU:1 [LOST EVENTS]\n", 0),
        ("CPU:7 [204600 EVENTS DROPPED]\n", 204600),
        ("CPU:7 [EVENTS DROPPED]\n", 0),
        ("  perf-exec 13361 [000]  1444.433607: PERF_RECORD_LOST lost 12\n", 12),
        ("PERF_RECORD_LOST lost 12\n", 12),
        ("  perf-exec 13361 [000]  1444.433607: PERF_RECORD_LOST_SAMPLES lost 3\n", 3),
    ],
)
def test_lost_events_are_counted(tmp_path: Path, line: str, lost: int) -> None:
    printer, header = (perf, "") if "PERF" in line else (ftrace, FTRACE_HEADER)
    text = header + printer(ALLOCATED) + line + printer(FREED)
    seen = read(tmp_path, text).statistics
    assert (seen.lost_gaps, seen.lost_events, seen.events) == (1, lost, 2)
    assert_each_line_counted_once(seen)


def test_overwritten_events_are_told_from_the_header(tmp_path: Path) -> None:
    text = text_of(BOTH).replace(b"written: 7/7 ", b"written: 7/1007 ")
    assert read(tmp_path, text).statistics.overwritten_events == 1000
    assert read(tmp_path, text_of(BOTH)).statistics.overwritten_events == 0


@pytest.mark.parametrize(
    "line",
    [
        "rubbish\n",
        "CPU:1 rubbish\n",
        ftrace(ALLOCATED).replace("pfn=0x12ee98", "pfn="),
        ftrace(ALLOCATED).replace("pfn=0x12ee98", "pfn=0x12eg98"),
        ftrace(ALLOCATED).replace("pfn=0x12ee98", "pfn=0x"),
        ftrace(ALLOCATED).replace("pfn=0x12ee98", "pfn=-5"),
        ftrace(ALLOCATED).replace("pfn=0x12ee98", "pfn=0x12ee99"),  # Not aligned to order 3.
        ftrace(ALLOCATED).replace("order=3", "order=17"),
        ftrace(ALLOCATED).replace("order=3 ", ""),
        ftrace(ALLOCATED).replace("migratetype=1", "migratetype=16"),
        ftrace(ALLOCATED).replace("migratetype=1", "migratetype=Movable"),
        ftrace(ALLOCATED).replace("[001]", "[65536]"),
        ftrace(ALLOCATED).replace("[001]", "001"),
        ftrace(ALLOCATED).replace("[001]", "[]"),
        ftrace(ALLOCATED).replace("[001]", "[00x]"),
        ftrace(ALLOCATED).replace(" 1409.149175", "1000000000.149175"),
        ftrace(ALLOCATED).replace(" 1409.149175", "9" * 30),
        ftrace(ALLOCATED).replace("1409.149175", "1409.1491750000"),
        ftrace(ALLOCATED).replace("1409.149175", ".149175"),
        ftrace(ALLOCATED)[:60] + "\n",
        "  bash-1  [000] d..1.  1.000000: do_fork <-kernel_clone\n",
        "123: mm_page_free: pfn=1 order=0\n",
        "[1]:\n",
        ":\n",
        "1:\n",
    ],
)
def test_an_unreadable_line_is_counted_and_nothing_else(tmp_path: Path, line: str) -> None:
    trace = read(tmp_path, FTRACE_HEADER + line + ftrace(FREED))
    assert events_of(trace) == [FREED]
    assert trace.statistics.unreadable_lines == 1
    assert_each_line_counted_once(trace.statistics)


def test_page_frames_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    beyond = FREED._replace(pfn=PFN_MAX)
    last = FREED._replace(pfn=PFN_MAX - 8)
    trace = read(tmp_path, text_of([beyond, last]))
    assert events_of(trace) == [last]
    assert (trace.statistics.pfns_beyond, trace.statistics.pfn_max) == (1, PFN_MAX - 1)
    with pytest.raises(TraceError, match="every page frame is 0x10000000000 or more"):
        read(tmp_path, text_of([beyond]))


def test_events_that_go_back_in_time_are_counted_and_kept(tmp_path: Path) -> None:
    events = [FREED._replace(time_ns=t * 1_000_000) for t in (5, 3, 4, 6, 1)]
    trace = read(tmp_path, text_of(events))
    assert events_of(trace) == events
    assert trace.statistics.backward_times == 3
    assert trace.statistics.span_s == 5e-3


def test_a_cut_last_line_is_told(tmp_path: Path) -> None:
    text = text_of(BOTH)
    whole = read(tmp_path, text[:-1]).statistics
    assert (whole.events, whole.truncated) == (2, False)
    cut = read(tmp_path, text[:-10]).statistics
    assert (cut.events, cut.unreadable_lines, cut.truncated) == (1, 1, True)


def test_nothing_depends_on_where_chunks_end(tmp_path: Path) -> None:
    events = [FREED._replace(pfn=8 * i, time_ns=1000 * i) for i in range(4)]
    text = text_of(events) + b"CPU:1 [LOST 7 EVENTS]\nrubbish\n" + perf(FREED)[:30].encode()
    wanted = read(tmp_path, text)
    assert wanted.statistics.events == 4
    for chunk_bytes in [*range(1, 130), len(text) - 1, len(text), len(text) + 1]:
        found = read(tmp_path, text, chunk_bytes=chunk_bytes)
        assert found.statistics == wanted.statistics
        assert events_of(found) == events


def test_progress_ends_at_the_whole_file(tmp_path: Path) -> None:
    text = text_of(BOTH * 2000)
    told: list[tuple[int, int | None]] = []
    read(tmp_path, text, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (len(text), len(text))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    "text",
    [
        text_of(BOTH).decode() + perf(ALLOCATED),
        "cpus=2\n" + perf(ALLOCATED),
        FTRACE_HEADER + "cpus=2\n" + trace_cmd(ALLOCATED),
    ],
)
def test_more_than_one_format_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceError, match=r"trace: more than one format .*split it by format$"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trace: empty; record kmem:mm_page_alloc"),
        ("# tracer: nop\n", "no readable mm_page_alloc or mm_page_free in 1 lines"),
        ("a b c\n" * 3, r"\(0 other events, 0 failed allocations, 3 unreadable lines\)"),
        ("x" * (LINE_BYTES_MAX + 1), "a line of over 65536 bytes, so not a trace"),
    ],
)
def test_a_file_without_events_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message) as refused:
        read(tmp_path, text)
    assert "\n" not in str(refused.value)


EVENTS = st.lists(
    st.builds(
        lambda time_us, block, cpu, kind, order, migratetype: Event(
            time_us * 1000, block << order, cpu, kind, order, 0 if kind == FREE else migratetype
        ),
        st.integers(0, 10**14),
        st.integers(1, (PFN_MAX >> 10) - 1),
        st.integers(0, 4095),
        st.sampled_from([ALLOC, FREE]),
        st.integers(0, 10),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)
COMM = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS, comm=COMM, digits=st.sampled_from([6, 9]), chunk_bytes=st.integers(1, 4096))
def test_what_is_printed_is_read_back(
    tmp_path: Path, events: list[Event], comm: str, digits: int, chunk_bytes: int
) -> None:
    for text in (
        text_of(events, lambda e: ftrace(e, comm=comm)),
        text_of(events, lambda e: trace_cmd(e, comm=comm, digits=digits), "cpus=2\n"),
        text_of(events, lambda e: perf(e, comm=comm, digits=digits), ""),
    ):
        trace = read(tmp_path, text, chunk_bytes=chunk_bytes)
        assert events_of(trace) == events
        assert_each_line_counted_once(trace.statistics)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60).map(lambda b: b.replace(b"\0", b"0")),
            st.sampled_from([b"[1] ", b"2: ", b" 1.5: ", b"mm_page_free: ", b" pfn=", b" order="]),
            st.sampled_from([b"kmem:", b"0x", b"\n", b"]", b"[", b":", b"1", b"CPU:1 [LOST "]),
        ),
        max_size=40,
    ).map(b"".join)
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, rubbish: bytes) -> None:
    text = rubbish + b"\n" + ftrace(FREED).encode()
    try:
        trace = read(tmp_path, text)
    except TraceError as refused:
        assert "more than one format" in str(refused) or "not text" in str(refused)
    else:
        assert events_of(trace)[-1] == FREED
        assert trace.statistics.text_bytes == len(text)
        assert trace.statistics.lines == text.count(b"\n")
        assert_each_line_counted_once(trace.statistics)
