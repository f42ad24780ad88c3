"""Read a recorded trace: text of ftrace, `trace-cmd report` or `perf script` -> arrays.

The file passes through in chunks (`text_file`), each of which one call of the scanner
(`kernels.scan_chunk`) turns into records; the part of a line that a chunk ends with is carried to
the next.  What is no allocation and no free is dropped and counted; every line is counted once:

    lines == events + frees_batched + other_events + failed_allocations + lost_gaps
             + comment_lines + unreadable_lines + pfns_beyond

Prior art: the formats are those of include/trace/events/kmem.h; `mm_page_free_batched` is dropped
since it repeats an `mm_page_free`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emulator.traces.kernels import scan_chunk
from emulator.traces.layout import EVENT_BYTES_MIN, LINE_BYTES_MAX, PFN_MAX, SCAN, TRACE_EVENT
from emulator.traces.text_file import TextFile, TraceError

__all__ = ["CHUNK_BYTES", "Trace", "TraceError", "TraceStatistics", "read_trace"]

CHUNK_BYTES: Final = 1 << 18  # Text, records and tables of a chunk stay in a core's cache.

_HEAD_BYTES: Final = 4096
_OVERWRITTEN: Final = re.compile(rb"^# entries-in-buffer/entries-written: *(\d+)/(\d+)", re.M)
_WANTED: Final = "record kmem:mm_page_alloc and kmem:mm_page_free with ftrace, trace-cmd or perf"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStatistics:
    """What was found in a trace.

    Attributes:
        format: "ftrace", "trace-cmd report" or "perf script".
        compression: "gz", "xz", "zst", or None.
        file_bytes, text_bytes: read of the file; of its text.
        lines: of text, a last one without line feed included.
        events: `allocations + frees`, the records that were kept.
        frees_batched: mm_page_free_batched: dropped, each repeats a free.
        other_events: of any other kind: dropped.
        failed_allocations: mm_page_alloc of no page: dropped.
        lost_events: events that the recorder says it lost between two others, in `lost_gaps`
            places (of which some may say no number).
        overwritten_events: events that the recorder says it wrote but overwrote (ftrace's header).
        comment_lines: headers, comments, call stacks and empty lines.
        unreadable_lines: lines that are none of these, or lack a field or have an impossible one.
        pfns_beyond: events whose page frame is `PFN_MAX` or more: dropped.
        integer_times: kept events whose time is an integer of the trace's clock: read as ns.
        backward_times: kept events that are earlier than one before them.
        truncated: whether the compressed data end early, or the last line is cut.
        cpus: CPUs that events were recorded on.
        span_s: from the earliest kept event to the latest.
        pfn_max: the last page frame of the highest block.
    """

    format: str
    compression: str | None
    file_bytes: int
    text_bytes: int
    lines: int
    events: int
    allocations: int
    frees: int
    frees_batched: int
    other_events: int
    failed_allocations: int
    lost_events: int
    lost_gaps: int
    overwritten_events: int
    comment_lines: int
    unreadable_lines: int
    pfns_beyond: int
    integer_times: int
    backward_times: int
    truncated: bool
    cpus: int
    span_s: float
    pfn_max: int


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A recorded trace: TRACE_EVENT[statistics.events] in the order of the file, and the counts."""

    events: npt.NDArray[Any]
    statistics: TraceStatistics


class _Scanner:
    """Text in, records out: holds the carried part of a line and the counts."""

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self.path = path
        self.chunk_bytes = chunk_bytes
        self.words = np.zeros((LINE_BYTES_MAX + chunk_bytes) // 8 + 1, np.uint64)
        self.text = self.words.view(np.uint8)
        self.scratch = np.zeros(self.text.size // EVENT_BYTES_MIN + 1, TRACE_EVENT)
        self.counts = np.zeros(1, SCAN)
        self.filled = 0
        self.text_bytes = 0
        self.head = b""
        self.records: list[npt.NDArray[Any]] = []

    def feed(self, piece: bytes) -> None:
        """Read all whole lines up to the end of `piece`."""
        if len(self.head) < _HEAD_BYTES:
            self.head += piece[: _HEAD_BYTES - len(self.head)]
        self.text_bytes += len(piece)
        text = np.frombuffer(piece, np.uint8)
        for first in range(0, text.size, self.chunk_bytes):
            self._scan(text[first : first + self.chunk_bytes])

    def finish(self) -> bool:
        """Read a last line that has no line feed.  Whether there is one, and it is cut."""
        if self.filled == 0:
            return False
        unreadable = int(self.counts[0]["unreadable_lines"])
        self._scan(np.frombuffer(b"\n", np.uint8))
        return int(self.counts[0]["unreadable_lines"]) > unreadable

    def _scan(self, part: npt.NDArray[np.uint8]) -> None:
        self.text[self.filled : self.filled + part.size] = part
        self.filled += part.size
        consumed, written = scan_chunk(
            self.text, self.words, self.filled, self.counts, self.scratch
        )
        assert written < self.scratch.size
        if written:
            self.records.append(self.scratch[:written].copy())
        rest = self.filled - consumed
        if rest > LINE_BYTES_MAX:
            raise TraceError(
                f"{self.path}: a line of over {LINE_BYTES_MAX} bytes, so not a trace; {_WANTED}"
            )
        self.text[:rest] = self.text[consumed : self.filled]
        self.filled = rest


def read_trace(
    path: Path | str, *, progress: Progress | None = None, chunk_bytes: int = CHUNK_BYTES
) -> Trace:
    """Read the trace at `path`, plain or compressed with gzip, xz or zstd.

    Takes up to twice the memory of the events (24 bytes each), and a few MiB.

    Args:
        path: a file or a pipe.
        progress: called with the bytes of the file that have been read and its size (None for a
            pipe), many times a second.
        chunk_bytes: of text for a call of the scanner; 1 or more.

    Raises:
        TraceError: there is no file that can be read, its data are damaged or not text, it holds
            no event, or more than one format.
    """
    file = TextFile(Path(path))
    scanner = _Scanner(file.path, chunk_bytes)
    for piece in file.pieces():
        scanner.feed(piece)
        if progress is not None:
            progress(file.read_bytes, file.size_bytes)
    cut = scanner.finish()
    if scanner.text_bytes == 0:
        what = "the compressed data end before any text" if file.truncated else "empty"
        raise TraceError(f"{file.path}: {what}; {_WANTED}")
    trace_format = _format_of(file.path, scanner)
    events = np.concatenate(scanner.records)
    scanner.records.clear()
    return Trace(events, _statistics(file, scanner, events, trace_format, file.truncated or cut))


def _format_of(path: Path, scanner: _Scanner) -> str:
    """The name of the one format that the file holds."""
    counts = scanner.counts[0]
    kept = int(counts["allocations"] + counts["frees"])
    if kept == 0 and counts["pfns_beyond"] > 0:
        raise TraceError(
            f"{path}: every page frame is {PFN_MAX:#x} or more, beyond any machine's memory; "
            "give a trace with pfn= as the kernel prints it"
        )
    if kept == 0:
        others = int(counts["frees_batched"] + counts["other_events"])
        failed = int(counts["failed_allocations"])
        raise TraceError(
            f"{path}: no readable mm_page_alloc or mm_page_free in {int(counts['lines'])} lines "
            f"({others} other events, {failed} failed allocations, "
            f"{int(counts['unreadable_lines'])} unreadable lines); {_WANTED}"
        )
    found = []
    if counts["perf_events"] > 0:
        found.append("perf script")
    if counts["trace_cmd_headers"] > 0:
        found.append("trace-cmd report")
    without_prefix = kept > counts["perf_events"]
    if counts["ftrace_headers"] > 0 or (without_prefix and "trace-cmd report" not in found):
        found.append("ftrace")
    if len(found) > 1:
        raise TraceError(
            f"{path}: more than one format in one file ({', '.join(found)}); split it by format"
        )
    return found[0]


def _statistics(
    file: TextFile, scanner: _Scanner, events: npt.NDArray[Any], trace_format: str, truncated: bool
) -> TraceStatistics:
    counts = {name: int(scanner.counts[0][name]) for name in SCAN.names or ()}
    for internal in ("perf_events", "ftrace_headers", "trace_cmd_headers", "last_time_ns"):
        del counts[internal]
    header = _OVERWRITTEN.search(scanner.head)
    in_buffer, written = (int(header[1]), int(header[2])) if header else (0, 0)
    span_ns = int(events["time_ns"].max()) - int(events["time_ns"].min())
    blocks_end = events["pfn"] + (np.uint64(1) << events["order"].astype(np.uint64))
    return TraceStatistics(
        format=trace_format,
        compression=file.compression,
        file_bytes=file.read_bytes,
        text_bytes=scanner.text_bytes,
        events=events.size,
        overwritten_events=max(written - in_buffer, 0),
        truncated=truncated,
        cpus=int(np.count_nonzero(np.bincount(events["cpu"]))),
        span_s=span_ns / 1e9,
        pfn_max=int(blocks_end.max()) - 1,
        **counts,
    )
