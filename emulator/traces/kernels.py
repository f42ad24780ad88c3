"""Read a chunk of trace text: one pass over its bytes, no copy, no allocation.

The three formats differ in what stands before the CPU only, and a line is read without it:

              bash-12181   [001] .....  1409.149175: mm_page_alloc: page=… pfn=0x12ee99 order=0 …
         perf-exec 13361 [000]  1444.433607:            kmem:mm_page_alloc: page=… pfn=…

The first colon that ends a time is looked for; from there the time, the flags (where there are
any) and `[cpu]` are read backwards, and the event's name and fields forwards.  So the name of the
process may hold blanks, dashes, digits and colons, and columns may be missing or of any width.
"""

from typing import Any

import numpy as np

from devices.memory.jit import kernel
from emulator.traces.layout import (
    ALLOC,
    EVENT_ALLOC,
    EVENT_FREE,
    EVENT_FREE_BATCHED,
    FIELD_MIGRATETYPE,
    FIELD_ORDER,
    FIELD_PFN,
    FLAGS_CHARACTERS_MAX,
    FREE,
    FTRACE_HEADER,
    LOST_CPU,
    LOST_EVENTS,
    NUMBER_MAX,
    PERF_LOST,
    PFN_MAX,
    STACK_ADDRESS_DIGITS_MIN,
    STACK_ARROW,
    STACK_TITLE,
    SUBSYSTEM,
    TIME_NS_MAX,
    TRACE_CMD_CPU,
    TRACE_CMD_HEADER,
    TRACE_CMD_VERSION,
    TRACED_CPU_MAX,
    TRACED_MIGRATETYPE_MAX,
    TRACED_ORDER_MAX,
)

_NEWLINE = 10
_SPACE = 32  # Whatever is not above it separates words: also tab and carriage return.
_HASH = 35
_DOT = 46
_ZERO = 48
_NINE = 57
_COLON = 58
_OPENING = 91
_CLOSING = 93
_LOWER_A = 97
_LOWER_X = 120

_ONES = np.uint64(0x0101_0101_0101_0101)
_LOW_BITS = np.uint64(0x7F7F_7F7F_7F7F_7F7F)
_ALL_BITS = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@kernel(inline=True)
def _is_digit(character: int) -> bool:
    return _ZERO <= character <= _NINE


@kernel
def _find_byte(text: Any, words: Any, at: int, end: int, byte: int) -> int:
    """Where `byte` is first found in `text[at:end]`, or `end`.  Eight bytes at a time.

    A byte of `x` is 0 exactly if `(x & 0x7f) + 0x7f | x` lacks its highest bit.
    """
    while at < end and at & 7 != 0 and text[at] != byte:
        at += 1
    if at & 7 == 0:
        pattern = _ONES * np.uint64(byte)
        while at + 8 <= end:
            x = words[at >> 3] ^ pattern
            if ((x & _LOW_BITS) + _LOW_BITS) | x | _LOW_BITS != _ALL_BITS:
                break
            at += 8
        while at < end and text[at] != byte:
            at += 1
    return at


@kernel
def _starts_with(text: Any, at: int, end: int, word: Any) -> bool:
    if end - at < word.size:
        return False
    i = 0
    while i < word.size and text[at + i] == word[i]:
        i += 1
    return bool(i == word.size)


@kernel
def _find(text: Any, at: int, end: int, word: Any) -> int:
    """Where `word` is first found in `text[at:end]`, or -1."""
    for i in range(at, end - word.size + 1):
        if text[i] == word[0] and _starts_with(text, i, end, word):
            return i
    return -1


@kernel(inline=True)
def _skip_blanks(text: Any, at: int, end: int) -> int:
    while at < end and text[at] <= _SPACE:
        at += 1
    return at


@kernel
def _number(text: Any, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, decimal or hexadecimal with `0x`, and where it ends.

    -1 without a digit; `NUMBER_MAX` or more if it has too many.
    """
    base = 10
    if end - at > 2 and text[at] == _ZERO and text[at + 1] == _LOWER_X:
        base = 16
        at += 2
    value: Any = np.int64(-1)
    while at < end:
        character: Any = np.int64(text[at])
        if _is_digit(character):
            digit = character - _ZERO
        elif base == 16 and _LOWER_A <= (character | 32) < _LOWER_A + 6:
            digit = (character | 32) - _LOWER_A + 10
        else:
            break
        value = min(max(value, 0), NUMBER_MAX >> 3) * base + digit
        at += 1
    return value, at


@kernel
def _field(text: Any, at: int, end: int, word: Any) -> tuple[int, int]:
    """The number after the first `word` in `text[at:end]`, and where it ends; -1 without one."""
    found = _find(text, at, end, word)
    if found < 0:
        return -1, at
    value, after = _number(text, found + word.size, end)
    if after < end and text[after] > _SPACE:
        return -1, at
    return value, after


@kernel
def _time_ns(text: Any, start: int, first: int, colon: int) -> tuple[int, int, bool]:
    """The time whose last digits are `text[first:colon]`: ns, where it starts, if an integer.

    -1 if it cannot be read, `TIME_NS_MAX` or more if it is too large.
    """
    last, _ = _number(text, first, colon)
    if first == start or text[first - 1] != _DOT:
        return last, first, True
    digits = colon - first
    seconds_end = first - 1
    first = seconds_end
    while first > start and _is_digit(text[first - 1]):
        first -= 1
    if first == seconds_end or digits > 9:
        return -1, first, False
    for _ in range(9 - digits):
        last *= 10
    seconds, _ = _number(text, first, seconds_end)
    return min(seconds, TIME_NS_MAX // 1_000_000_000) * 1_000_000_000 + last, first, False


@kernel
def _cpu_before(text: Any, start: int, at: int) -> int:
    """The `[cpu]` before the time that starts at `at`, flags between them or not; -1 without."""
    i = at
    while i > start and text[i - 1] <= _SPACE:
        i -= 1
    if i in (at, start):
        return -1
    if text[i - 1] != _CLOSING:
        word_end = i
        while i > start and text[i - 1] > _SPACE:
            character = text[i - 1]
            if character in (_COLON, _OPENING, _CLOSING):
                return -1
            i -= 1
        if word_end - i > FLAGS_CHARACTERS_MAX:
            return -1
        while i > start and text[i - 1] <= _SPACE:
            i -= 1
        if i == start or text[i - 1] != _CLOSING:
            return -1
    closing = i - 1
    i = closing
    while i > start and _is_digit(text[i - 1]):
        i -= 1
    if i in (closing, start) or text[i - 1] != _OPENING:
        return -1
    if i - 1 > start and text[i - 2] > _SPACE:
        return -1
    cpu, _ = _number(text, i, closing)
    return cpu


@kernel
def _is_name(text: Any, at: int, end: int) -> bool:
    """Whether a word that ends with a colon comes next, as an event's name does."""
    start = _skip_blanks(text, at, end)
    at = start
    while at < end and text[at] > _SPACE:
        at += 1
    return at - start > 1 and text[at - 1] == _COLON


@kernel
def _stamp(text: Any, words: Any, start: int, end: int) -> tuple[int, int, int, bool]:
    """Of an event's line: its CPU, its time in ns, where its name may start, if an integer time.

    A CPU of -1 if the line is none of an event.
    """
    after = start + 1
    while True:
        colon = _find_byte(text, words, after, end, _COLON)
        if colon >= end:
            return -1, -1, -1, False
        after = colon + 1
        if not _is_digit(text[colon - 1]) or (after < end and text[after] > _SPACE):
            continue
        first = colon - 1
        while first > start and _is_digit(text[first - 1]):
            first -= 1
        time_ns, time_start, is_integer = _time_ns(text, start, first, colon)
        if time_ns < 0:
            continue
        cpu = _cpu_before(text, start, time_start)
        if cpu >= 0 and _is_name(text, after, end):
            return cpu, time_ns, after, is_integer


@kernel
def _count_lost(text: Any, at: int, end: int, counts: Any) -> None:
    """Count a gap, and the events lost in it: the first number from `at` on, if there is one."""
    counts[0]["lost_gaps"] += 1
    while at < end and not _is_digit(text[at]):
        at += 1
    lost, _ = _number(text, at, end)
    if 0 <= lost < PFN_MAX:
        counts[0]["lost_events"] += lost


@kernel
def _is_stack(text: Any, start: int, at: int, end: int) -> bool:
    """Whether the line is one of a call stack's; `at`: its first character that is not blank."""
    if _starts_with(text, at, end, STACK_ARROW) or _starts_with(text, at, end, STACK_TITLE):
        return True
    i = at
    while i < end and (_is_digit(text[i]) or _LOWER_A <= text[i] < _LOWER_A + 6):
        i += 1
    return at > start and i - at >= STACK_ADDRESS_DIGITS_MIN and i < end and text[i] <= _SPACE


@kernel
def _count_line_without_event(text: Any, start: int, end: int, counts: Any) -> None:
    at = _skip_blanks(text, start, end)
    if at == end or text[start] == _HASH:
        counts[0]["comment_lines"] += 1
        if _starts_with(text, start, end, FTRACE_HEADER):
            counts[0]["ftrace_headers"] += 1
    elif _starts_with(text, start, end, TRACE_CMD_HEADER):
        counts[0]["comment_lines"] += 1
        counts[0]["trace_cmd_headers"] += 1
    elif _starts_with(text, start, end, LOST_CPU) and _find(text, start, end, LOST_EVENTS) >= 0:
        bracket = start + LOST_CPU.size
        while bracket < end and text[bracket] != _OPENING:
            bracket += 1
        _count_lost(text, bracket, end, counts)
    elif _find(text, start, end, PERF_LOST) >= 0:
        _count_lost(text, _find(text, start, end, PERF_LOST), end, counts)
    elif (
        _starts_with(text, start, end, TRACE_CMD_CPU)
        or _starts_with(text, start, end, TRACE_CMD_VERSION)
        or _is_stack(text, start, at, end)
    ):
        counts[0]["comment_lines"] += 1
    else:
        counts[0]["unreadable_lines"] += 1


@kernel
def _read_fields(text: Any, at: int, end: int, kind: int, counts: Any, event: Any) -> bool:
    """Read pfn, order and migratetype behind the event's name; False, and counted, if unusable."""
    pfn, at = _field(text, at, end, FIELD_PFN)
    order, at = _field(text, at, end, FIELD_ORDER)
    migratetype: Any = np.int64(0)
    if kind == ALLOC:
        migratetype, at = _field(text, at, end, FIELD_MIGRATETYPE)
    if (
        pfn < 0
        or not 0 <= order <= TRACED_ORDER_MAX
        or not 0 <= migratetype <= TRACED_MIGRATETYPE_MAX
    ):
        counts[0]["unreadable_lines"] += 1
        return False
    if kind == ALLOC and (pfn == 0 or pfn >= NUMBER_MAX):  # A NULL page: 0, in places -1.
        counts[0]["failed_allocations"] += 1
        return False
    if pfn >= PFN_MAX:
        counts[0]["pfns_beyond"] += 1
        return False
    if pfn & ((1 << order) - 1) != 0:  # The buddy allocator's blocks are aligned to their size.
        counts[0]["unreadable_lines"] += 1
        return False
    event["pfn"] = pfn
    event["kind"] = kind
    event["order"] = order
    event["migratetype"] = migratetype
    return True


@kernel
def _read_line(text: Any, words: Any, start: int, end: int, counts: Any, event: Any) -> bool:
    """Read `text[start:end]`, a line, into `event`; False if it is none for replay."""
    cpu, time_ns, at, is_integer = _stamp(text, words, start, end)
    if cpu < 0:
        _count_line_without_event(text, start, end, counts)
        return False
    at = _skip_blanks(text, at, end)
    is_perf = _starts_with(text, at, end, SUBSYSTEM)
    if is_perf:
        at += SUBSYSTEM.size
    if _starts_with(text, at, end, EVENT_ALLOC):
        kind = ALLOC
    elif _starts_with(text, at, end, EVENT_FREE):
        kind = FREE
    else:
        lost = _find(text, at, end, PERF_LOST)
        if lost >= 0:
            _count_lost(text, lost, end, counts)
        elif _starts_with(text, at, end, EVENT_FREE_BATCHED):
            counts[0]["frees_batched"] += 1
        else:
            counts[0]["other_events"] += 1
        return False
    if cpu > TRACED_CPU_MAX or time_ns >= TIME_NS_MAX:
        counts[0]["unreadable_lines"] += 1
        return False
    if not _read_fields(text, at, end, kind, counts, event):
        return False
    event["cpu"] = cpu
    event["time_ns"] = time_ns
    counts[0]["perf_events"] += is_perf
    counts[0]["integer_times"] += is_integer
    if kind == ALLOC:
        counts[0]["allocations"] += 1
    else:
        counts[0]["frees"] += 1
    if time_ns < counts[0]["last_time_ns"]:
        counts[0]["backward_times"] += 1
    else:
        counts[0]["last_time_ns"] = time_ns
    return True


@kernel
def scan_chunk(text: Any, words: Any, length: int, counts: Any, events: Any) -> tuple[int, int]:
    """Read the whole lines of `text[:length]`.

    Args:
        text: uint8[8 * n], trace text, from the start of a line on.
        words: uint64[n], the same memory.
        length: bytes of it that are filled.
        counts: SCAN[1], added to.
        events: TRACE_EVENT[m], filled from its start on, in the order of the lines.

    Returns:
        Bytes read (up to and with the last line feed; less if `events` is full) and events written.
    """
    start: Any = np.int64(0)
    written: Any = np.int64(0)
    while written < events.size:
        end = _find_byte(text, words, start, length, _NEWLINE)
        if end == length:
            break
        counts[0]["lines"] += 1
        written += _read_line(text, words, start, end, counts, events[written])
        start = end + 1
    return start, written
