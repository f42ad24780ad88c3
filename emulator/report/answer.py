"""The run's answer in two or three sentences: what came back, what stayed and why, at what price.

The sentences are made from the summary alone, so that the text, the HTML page and a later
`report` of the same folder say the same.  What was not measured is said to be so.
"""

from typing import Final

from emulator.report.free_orders import which_survive
from emulator.report.wording import (
    NOT_MEASURED,
    count_text,
    counted,
    duration_text,
    listed,
    milliseconds_text,
    percent_text,
    size_text,
)
from emulator.summary import Summary

#: Key of `summary.stranded` -> short label, and the words that follow "30 MiB".
STRANDED_CAUSES: Final = {
    "below_order_bytes": ("below reporting order", "in blocks below the reporting order"),
    "percpu_bytes": ("per-CPU lists", "in per-CPU lists"),
    "page_cache_bytes": ("page cache", "in the page cache"),
    "in_flight_bytes": ("in flight", "in flight to the host"),
    "unreported_bytes": ("not reported yet", "in blocks that were not reported yet"),
}

#: A smaller part of the peak than this counts as nothing.
_NOTHING: Final = 0.005
_CLEARLY: Final = 0.9


def stranded_parts(summary: Summary) -> tuple[tuple[str, str, int | None], ...]:
    """Free memory that was not returned: `(label, words, bytes or None)` for each cause."""
    return tuple(
        (label, words, getattr(summary.stranded, key))
        for key, (label, words) in STRANDED_CAUSES.items()
    )


def came_back_bytes(summary: Summary) -> int | None:
    """The fall of host resident memory from its peak to the end of the run; `None`: unknown."""
    host = summary.host
    if host.resident_bytes_peak is None or host.resident_bytes_end is None:
        return None
    return max(0, host.resident_bytes_peak - host.resident_bytes_end)


def came_back_fraction(summary: Summary) -> float | None:
    """`came_back_bytes` as a fraction of the peak; `None` without a peak."""
    came_back, peak = came_back_bytes(summary), summary.host.resident_bytes_peak
    return came_back / peak if came_back is not None and peak else None


def answer(summary: Summary) -> str:
    """The answer as plain text on one line, for any complete or incomplete summary."""
    sentences = [
        _soundness(summary),
        _came_back(summary),
        _stayed(summary),
        _followed(summary),
        _trickled(summary),
        which_survive(summary),
        _price(summary),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _soundness(summary: Summary) -> str:
    oracle = summary.oracle
    if not oracle.violations:
        return ""
    of_checked = "" if oracle.pages_checked is None else f" of {count_text(oracle.pages_checked)}"
    return (
        f"Not sound: {count_text(oracle.violations)}{of_checked} checked pages had been "
        "discarded while in use."
    )


def _came_back(summary: Summary) -> str:
    host = summary.host
    came_back, fraction = came_back_bytes(summary), came_back_fraction(summary)
    if came_back is None:
        return "How much memory came back to the host was not measured."
    if fraction is None or fraction < _NOTHING:
        return (
            f"Nothing came back to the host: of {size_text(host.resident_bytes_peak)} at the "
            f"peak, {size_text(host.resident_bytes_end)} were still resident at the end."
        )
    sentence = (
        f"Of the {size_text(host.resident_bytes_peak)} that "
        f"{'the guests held at their' if summary.guests else 'the guest held at its'} peak, "
        f"{size_text(came_back)} ({percent_text(fraction)}) had come back to the host at the end"
    )
    latency = summary.hinting.reclaim_latency_ms
    if latency is None or latency.p50 is None:
        return f"{sentence}; how soon was {NOT_MEASURED}."
    soon = f"half of the blocks within {milliseconds_text(latency.p50)} of being freed"
    if latency.max is not None:
        soon += f", the last after {milliseconds_text(latency.max)}"
    return f"{sentence}; {soon}."


def _stayed(summary: Summary) -> str:
    parts = stranded_parts(summary)
    measured = [(words, size) for _, words, size in parts if size is not None]
    missing = [label for label, _, size in parts if size is None]
    if not measured:
        return f"What stayed although free was {NOT_MEASURED}."
    gap = f" ({listed(missing)}: {NOT_MEASURED})" if missing else ""
    causes = sorted((item for item in measured if item[1] > 0), key=lambda item: -item[1])
    if not causes:
        return f"No free memory stayed behind{gap}."
    if len(causes) == 1:
        words, size = causes[0]
        return f"{size_text(size)} stayed although free, {words}{gap}.{_resident(summary, size)}"
    total = sum(size for _, size in causes)
    by_cause = listed([f"{size_text(size)} {words}" for words, size in causes])
    return f"{size_text(total)} stayed although free: {by_cause}{gap}.{_resident(summary, total)}"


def _resident(summary: Summary, stayed: int) -> str:
    """How much of what stayed can hold the host's memory at all, where that is clearly less."""
    resident = summary.host.resident_bytes_end
    if resident is None or resident >= _CLEARLY * stayed:
        return ""
    rest = "was swapped out or not touched" if summary.host.swapped_bytes_end else "was not touched"
    return f" At most {size_text(resident)} of that is resident; the rest {rest}."


def _followed(summary: Summary) -> str:
    """How the balloon followed its target, and what the guest had to wait for."""
    balloon = summary.balloon
    if balloon.targets is None or balloon.targets_reached is None:
        return ""
    sentence = f"Of {counted(balloon.targets, 'target')} the balloon reached "
    if not balloon.targets_reached or balloon.follow_s_max is None:
        sentence += "none."
    else:
        within = duration_text(balloon.follow_s_max)
        sentence += f"{count_text(balloon.targets_reached)}, within {within} at most."
    if not balloon.oom_calls:
        return sentence
    sentence += f" Out of memory, vCPUs had {size_text(balloon.oom_bytes)} of it back"
    if balloon.oom_wait_s is None:
        return f"{sentence}."
    return f"{sentence}, and waited {duration_text(balloon.oom_wait_s)} for that."


def _trickled(summary: Summary) -> str:
    """What was left of memory that was freed little by little, as the last was freed and later."""
    trickled = summary.workload.get("trickled_bytes")
    phases = {phase.name: phase for phase in summary.phases}
    if not trickled or not {"trickle", "idle"} <= phases.keys():
        return ""
    then, later = phases["trickle"].resident_bytes_end, phases["idle"].resident_bytes_end
    if then is None or later is None:
        return ""
    idle = phases["idle"]
    return (
        f"As the last of {size_text(trickled)} was freed, little by little, {size_text(then)} were "
        f"still resident; {duration_text(idle.end_s - idle.start_s)} of idling later "
        f"{size_text(later)}."
    )


def _price(summary: Summary) -> str:
    seconds = summary.cost.cpu_s_per_gib_returned
    if seconds is None:
        return ""
    # In virtual time nothing is measured: it is what the work costs by the scenario's prices.
    priced = "" if summary.virtual_s is None else ", by the scenario's [cost]"
    return f"The price: {duration_text(seconds)} of CPU time for each GiB returned{priced}."
