"""Page-allocation events as a kernel recorded them, and the program that replays them.

Sources: include/trace/events/kmem.h (the events' fields), kernel/trace/trace_output.c (ftrace),
tools/lib/traceevent and trace-cmd's tracecmd/trace-read.c (`trace-cmd report`),
tools/perf/builtin-script.c (`perf script`).
"""

from typing import Any, Final

import numpy as np

# TRACE_EVENT.kind and REPLAY_OPERATION.kind
ALLOC: Final = 0
FREE: Final = 1

# Limits.  A line beyond them is no event of a machine that exists, and is counted as unreadable.
PFN_MAX: Final = 2**40  # Exclusive: 4 PiB of 4 KiB pages.
TRACED_ORDER_MAX: Final = 16  # Inclusive: no architecture's MAX_PAGE_ORDER is higher.
TRACED_CPU_MAX: Final = 65_535  # Inclusive.
TRACED_MIGRATETYPE_MAX: Final = 15  # Inclusive: kernels know six.
SECONDS_MAX: Final = 10**9  # Exclusive: 31 years of uptime.
TIME_NS_MAX: Final = SECONDS_MAX * 10**9  # Exclusive.
NUMBER_MAX: Final = 2**61  # A number of too many digits is read as this or more.
LINE_BYTES_MAX: Final = 65_536  # Of one line.
EVENT_BYTES_MIN: Final = 32  # The shortest has 36: `[0] 1: mm_page_free: pfn=1 order=0`.
FLAGS_CHARACTERS_MAX: Final = 8  # The column between `[cpu]` and the time, where there is one.

STACK_ADDRESS_DIGITS_MIN: Final = 8  # Of an address at the start of a call stack's line.


def _word(characters: bytes) -> Any:
    return np.frombuffer(characters, np.uint8)


# What the scanner looks for, as arrays of bytes.
SUBSYSTEM: Final = _word(b"kmem:")
EVENT_ALLOC: Final = _word(b"mm_page_alloc:")
EVENT_FREE: Final = _word(b"mm_page_free:")
EVENT_FREE_BATCHED: Final = _word(b"mm_page_free_batched:")
FIELD_PFN: Final = _word(b" pfn=")
FIELD_ORDER: Final = _word(b" order=")
FIELD_MIGRATETYPE: Final = _word(b" migratetype=")
PERF_LOST: Final = _word(b"PERF_RECORD_LOST")  # perf script --show-lost-events
LOST_CPU: Final = _word(b"CPU:")  # `CPU:1 [LOST 9 EVENTS]`; trace-cmd: `CPU:1 [9 EVENTS DROPPED]`
LOST_EVENTS: Final = _word(b"EVENTS")
FTRACE_HEADER: Final = _word(b"# tracer:")
TRACE_CMD_HEADER: Final = _word(b"cpus=")
TRACE_CMD_VERSION: Final = _word(b"version =")
TRACE_CMD_CPU: Final = _word(b"CPU ")  # `CPU 1 is empty`
STACK_ARROW: Final = _word(b"=>")
STACK_TITLE: Final = _word(b"<stack trace>")

TRACE_EVENT: Final = np.dtype(  # An event, in the order of the file.
    [
        ("time_ns", "<u8"),  # As printed: since boot, or whatever the trace's clock counts.
        ("pfn", "<u8"),
        ("cpu", "<u2"),
        ("kind", "u1"),  # ALLOC or FREE
        ("order", "u1"),
        ("migratetype", "u1"),  # As the kernel numbers them; 0 where `kind` is FREE.
        ("unused", "u1", (3,)),
    ]
)
assert TRACE_EVENT.itemsize == 24

SCAN: Final = np.dtype(  # What the scanner has counted so far; one record a file.
    [
        ("lines", "<i8"),
        ("allocations", "<i8"),
        ("frees", "<i8"),
        ("perf_events", "<i8"),  # Of both, those with the `kmem:` that only perf prints.
        ("frees_batched", "<i8"),  # mm_page_free_batched: each repeats an mm_page_free.
        ("other_events", "<i8"),
        ("failed_allocations", "<i8"),
        ("lost_events", "<i8"),
        ("lost_gaps", "<i8"),
        ("ftrace_headers", "<i8"),
        ("trace_cmd_headers", "<i8"),
        ("comment_lines", "<i8"),
        ("unreadable_lines", "<i8"),
        ("pfns_beyond", "<i8"),
        ("integer_times", "<i8"),
        ("backward_times", "<i8"),
        ("last_time_ns", "<i8"),
    ]
)

REPLAY_OPERATION: Final = np.dtype(  # What a vCPU does, in the order of the trace.
    [
        ("time_ns", "<u8"),  # Since the first event; never less than the operation before.
        ("slot", "<u4"),
        ("offset", "<u4"),  # FREE: pages between the slot's first page and the freed ones.
        ("cpu", "<u2"),
        ("kind", "u1"),  # ALLOC or FREE
        ("order", "u1"),
        ("migratetype", "u1"),  # As the kernel numbers them; 0 where `kind` is FREE.
        ("unused", "u1", (3,)),
    ]
)
assert REPLAY_OPERATION.itemsize == 24

REPLAY_BLOCK: Final = np.dtype([("slot", "<u4"), ("order", "<u4")])  # Allocated before the start.

REPLAY_COUNTS: Final = np.dtype(
    [
        (
            "operations",
            "<i8",
        ),  # Written or not: more than there is room for is counted all the same.
        ("slots", "<i8"),  # Those that allocations of the trace use.
        ("vacant_slot", "<i8"),  # Head of the list through REPLAY_SLOT.next, or NO_SLOT.
        ("before", "<i8"),  # Blocks allocated before the start.
        ("before_pages", "<i8"),
        ("preexisting_frees", "<i8"),
        ("unmatched_frees", "<i8"),
        ("double_allocations", "<i8"),
        ("partial_frees", "<i8"),
        ("spanning_frees", "<i8"),
        ("live_pages", "<i8"),  # Without those of `before`: less than 0 once they are freed.
        ("peak_pages", "<i8"),
    ]
)

REPLAY_SLOT: Final = np.dtype(
    [
        ("first_page", "<u4"),
        ("left_pages", "<u4"),  # Not yet freed.  0: the slot is vacant.
        ("order", "<u4"),
        ("next", "<u4"),  # Vacant slot
    ]
)
REPLAY_PAGE: Final = np.dtype([("slot", "<u4"), ("state", "u1")])  # `slot` where a head.

NO_SLOT: Final = 2**31 - 1  # Slots of the trace's allocations are below.
BEFORE_START: Final = 2**31  # In `slot`, while compiling: the block was allocated before the start.
REPLAY_PAGES_MAX: Final = 2**30  # Page frames that a trace may touch: 4 TiB of 4 KiB pages.

# REPLAY_PAGE.state
PAGE_UNSEEN: Final = 0  # No event has named it: whether it is allocated is not known.
PAGE_SEEN: Final = 1  # Free, or inside an allocated block.
PAGE_HEAD: Final = 2  # + order: the first page of an allocated block, or of what is left of one.
assert PAGE_HEAD + TRACED_ORDER_MAX < 256
