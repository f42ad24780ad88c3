"""The record of which pages are in the balloon, a buffer of page numbers a call.

pfns    u4[n], ascending; only the first of equal ones counts
spans   PAGE_SPAN, ascending: where pages are
inside  u1[pages]: 1 for a page that is in the balloon
"""

from typing import Any

from devices.balloon.layout import BALLOON_PAGE_SIZE
from devices.memory.jit import i64, kernel


@kernel(inner=True)
def _span_of(spans: Any, pfn: int, start: int) -> Any:
    """The first span from `start` on that does not end before `pfn`; len(spans): there is none."""
    s = i64(start)
    while s < len(spans) and pfn >= i64(spans[s]["first_pfn"]) + i64(spans[s]["pages"]):
        s += 1
    return s


@kernel(inner=True)
def _move(pfns: Any, spans: Any, inside: Any, to: int, taken: Any) -> None:
    """Mark pages as being in the balloon (`to` 1) or not (0), and count what became of each."""
    s = i64(0)
    for index in range(len(pfns)):
        pfn = i64(pfns[index])
        if index > 0 and pfn == i64(pfns[index - 1]):
            taken["duplicates"] += 1
            continue
        s = _span_of(spans, pfn, s)
        if s == len(spans) or pfn < i64(spans[s]["first_pfn"]):
            taken["outside"] += 1
            continue
        page = i64(spans[s]["base"]) + pfn - i64(spans[s]["first_pfn"])
        if inside[page] == to:
            taken["unchanged"] += 1
        else:
            inside[page] = to
            taken["accepted"] += 1


@kernel(inner=True)
def _whole(inside: Any, base: int, pages: int, first: int, count: int) -> bool:
    """Whether pages `first` .. `first + count - 1` of a span of `pages` are all in the balloon."""
    if first + count > pages:
        return False
    for page in range(base + first, base + first + count):
        if inside[page] == 0:
            return False
    return True


@kernel
def inflate_pages(
    pfns: Any, spans: Any, inside: Any, granule: int, ranges: Any, taken: Any
) -> None:
    """Put pages into the balloon, and say what may be discarded for it.

    Writes `ranges`, DISCARD_RANGE[n]: those host pages of `granule` guest pages that were named,
    at least in part, and are in the balloon as a whole; ascending, adjacent ones as one.
    Adds to `taken`, PAGES_TAKEN[1].
    """
    _move(pfns, spans, inside, 1, taken[0])
    s, last_span, last_granule = i64(0), i64(-1), i64(-1)
    count = i64(0)
    length = granule * BALLOON_PAGE_SIZE
    for index in range(len(pfns)):
        pfn = i64(pfns[index])
        s = _span_of(spans, pfn, s)
        if s == len(spans) or pfn < i64(spans[s]["first_pfn"]):
            continue
        at = (pfn - i64(spans[s]["first_pfn"])) // granule
        if s == last_span and at == last_granule:
            continue
        last_span, last_granule = s, at
        base, pages = i64(spans[s]["base"]), i64(spans[s]["pages"])
        if granule > 1 and not _whole(inside, base, pages, at * granule, granule):
            continue
        offset = i64(spans[s]["offset"]) + at * length
        if count > 0 and i64(ranges[count - 1]["region"]) == s:
            before = ranges[count - 1]
            if i64(before["offset"]) + i64(before["length"]) == offset:
                before["length"] += length
                continue
        ranges[count]["region"] = s
        ranges[count]["offset"] = offset
        ranges[count]["length"] = length
        count += 1
    taken[0]["ranges"] += count


@kernel
def deflate_pages(pfns: Any, spans: Any, inside: Any, taken: Any) -> None:
    """Take pages out of the balloon; adds to `taken`, PAGES_TAKEN[1]."""
    _move(pfns, spans, inside, 0, taken[0])
