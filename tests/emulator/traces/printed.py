"""Events as the kernel's tools print them, to be read back."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from emulator.traces.layout import ALLOC, FREE, TRACE_EVENT
from emulator.traces.reader import Trace, TraceStatistics


class Event(NamedTuple):
    time_ns: int
    pfn: int
    cpu: int
    kind: int
    order: int
    migratetype: int


FTRACE_HEADER = (
    "# tracer: nop\n#\n"
    "# entries-in-buffer/entries-written: 7/7   #P:2\n#\n"
    "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
)


def seconds(time_ns: int, digits: int = 6) -> str:
    return f"{time_ns // 10**9:5d}.{time_ns % 10**9 // 10 ** (9 - digits):0{digits}d}"


def _fields(event: Event, pfn: str, page: str) -> str:
    if event.kind == FREE:
        return f"page={page} pfn={pfn} order={event.order}"
    return (
        f"page={page} pfn={pfn} order={event.order} migratetype={event.migratetype} "
        "gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP"
    )


def _name(event: Event) -> str:
    return "mm_page_alloc" if event.kind == ALLOC else "mm_page_free"


def ftrace(
    event: Event, comm: str = "bash", flags: str = ".....", tgid: str = "", decimal: bool = False
) -> str:
    pfn = str(event.pfn) if decimal else f"{event.pfn:#x}"
    return (
        f"{comm:>16}-{12181:<7d} {tgid}[{event.cpu:03d}] {flags} {seconds(event.time_ns)}: "
        f"{_name(event)}: {_fields(event, pfn, '00000000d04468a6')}\n"
    )


def trace_cmd(event: Event, comm: str = "bash", flags: str = "", digits: int = 6) -> str:
    return (
        f"{comm:>16}-{12181:<5d} [{event.cpu:03d}] {flags}{seconds(event.time_ns, digits)}: "
        f"{_name(event) + ':':<21}{_fields(event, f'{event.pfn:#x}', '0xffffea0004bba640')}\n"
    )


def perf(event: Event, comm: str = "bash", pid: str = "13361", digits: int = 6) -> str:
    return (
        f"{comm:>16} {pid:>5} [{event.cpu:03d}] {seconds(event.time_ns, digits)}: "
        f"{'kmem:' + _name(event):>29}: "
        f"{_fields(event, f'{event.pfn:#x}', f'{event.pfn:#x}')}\n"
    )


def text_of(
    events: Iterable[Event], line: Callable[[Event], str] = ftrace, header: str = FTRACE_HEADER
) -> bytes:
    return (header + "".join(map(line, events))).encode()


def trace_of(events: list[Event]) -> Trace:
    """A trace as if it had been read; of its statistics only what `events` tells."""
    records = np.array([(*event, (0, 0, 0)) for event in events], TRACE_EVENT)
    nothing = dict.fromkeys(TraceStatistics.__dataclass_fields__, 0)
    return Trace(records, TraceStatistics(**{**nothing, "events": len(events)}))  # type: ignore[arg-type]
