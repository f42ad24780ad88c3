"""Which figures of a run are shown, under which names and in which order.

The text and the HTML page draw the same tables, made here from the summary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.report.answer import stranded_parts
from emulator.report.wording import (
    NOT_MEASURED,
    count_text,
    counted,
    decimal_text,
    duration_text,
    exact_text,
    keyed_text,
    label_of,
    microseconds_text,
    milliseconds_text,
    nanoseconds_text,
    percent_text,
    rate_text,
    size_text,
)
from emulator.summary import Summary


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its name, as people read it, exactly, and whether it is bad news."""

    label: str
    text: str
    exact: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Figures under one heading."""

    title: str
    figures: tuple[Figure, ...]

    def shown(self) -> tuple[Figure, ...]:
        """The figures, or a single line if none of them was measured."""
        if any(figure.text != NOT_MEASURED for figure in self.figures):
            return self.figures
        return (Figure("all figures", NOT_MEASURED, NOT_MEASURED),)


def size_figure(label: str, size_bytes: int | None) -> Figure:
    """A figure for a size in bytes; `None` is shown as not measured."""
    return Figure(label, size_text(size_bytes), exact_text(size_bytes, "bytes"))


def _count(label: str, count: int | None, unit: str, *, bad: bool = False) -> Figure:
    return Figure(label, count_text(count), exact_text(count, unit), bad)


def _seconds(label: str, duration_s: float | None) -> Figure:
    return Figure(label, duration_text(duration_s), exact_text(duration_s, "seconds"))


def setup_words(summary: Summary) -> list[str]:
    """What was run, in which guest, and how: a few words each, the scenario's name first."""
    guest = summary.guest
    words = [summary.scenario, summary.mechanism]
    if summary.guests:
        words.append(counted(len(summary.guests), "guest"))
    if guest.memory_bytes is not None:
        words.append(f"{size_text(guest.memory_bytes)} of {guest.ram or ''} RAM".replace("  ", " "))
    if guest.vcpus is not None:
        words.append(counted(guest.vcpus, "vCPU"))
    words.append(f"{summary.launcher}, seed {summary.seed}")
    if summary.virtual_s is not None:
        words.append(f"{duration_text(summary.virtual_s)} of virtual time")
    if summary.wall_s is not None:
        words.append(f"ran for {duration_text(summary.wall_s)}")
    return words


def figure_tables(summary: Summary) -> tuple[FigureTable, ...]:
    """All tables of a run; those of swap, mechanism, balloon, page cache and workload only if these
    have figures."""
    mechanism = _own("Mechanism", summary.hinting.mechanism or {})
    own = (*_swap(summary), *mechanism, *_balloon(summary), *_page_cache(summary))
    tables = (_host(summary), _hinting(summary), *own, _cost(summary), _vcpus(summary))
    more = (_stranded(summary), _oracle(summary), *_own("Workload", summary.workload))
    return tables + more


def _host(summary: Summary) -> FigureTable:
    host = summary.host
    return FigureTable(
        "Host",
        (
            size_figure("resident at the start", host.resident_bytes_start),
            size_figure("resident at the peak", host.resident_bytes_peak),
            size_figure("resident at the end", host.resident_bytes_end),
            size_figure("resident, mean", host.resident_bytes_mean),
            *(
                (size_figure("free, mean", host.free_bytes_mean),)
                if host.free_bytes_mean is not None
                else ()
            ),
            Figure(
                "footprint",
                _with_unit(decimal_text(host.footprint_gib_min), host.footprint_gib_min, "GiB min"),
                exact_text(host.footprint_gib_min, "GiB minutes"),
            ),
            _seconds("CPU time of the host", host.cpu_s),
        ),
    )


def _swap(summary: Summary) -> tuple[FigureTable, ...]:
    host = summary.host
    if host.swapped_bytes_end is None:
        return ()
    figures = (
        size_figure("swapped at the peak", host.swapped_bytes_peak),
        size_figure("swapped at the end", host.swapped_bytes_end),
        size_figure("swapped out", host.swap_out_bytes),
        size_figure("swapped in", host.swap_in_bytes),
        size_figure("discarded there", host.swap_dropped_bytes),
        _seconds("guests waited for that", host.swap_wait_s),
        _count("times without room", host.swap_full, "times", bad=bool(host.swap_full)),
    )
    return (FigureTable("Host's swap", figures),)


def _with_unit(text: str, value: float | None, unit: str) -> str:
    return text if value is None else f"{text} {unit}"


def _hinting(summary: Summary) -> FigureTable:
    hinting = summary.hinting
    latency = hinting.reclaim_latency_ms
    percentiles = tuple(
        Figure(f"freed to returned, {name}", milliseconds_text(value), exact_text(value, "ms"))
        for name, value in (
            ("p50", latency.p50 if latency else None),
            ("p90", latency.p90 if latency else None),
            ("p99", latency.p99 if latency else None),
            ("max", latency.max if latency else None),
        )
    )
    return FigureTable(
        "Hinting",
        (
            _count("reports", hinting.reports, "reports"),
            _count("blocks", hinting.blocks, "blocks"),
            size_figure("claimed", hinting.claimed_bytes),
            size_figure("measured as returned", hinting.returned_bytes),
            size_figure("touched again", hinting.refaulted_bytes),
            Figure("regret", percent_text(hinting.regret), exact_text(hinting.regret, "")),
            _count("wake-ups", hinting.wakeups, "wake-ups"),
            *percentiles,
        ),
    )


def _balloon(summary: Summary) -> tuple[FigureTable, ...]:
    balloon = summary.balloon
    if balloon.balloon_bytes_end is None:
        return ()
    figures = (
        size_figure("target at the end", balloon.target_bytes_end),
        size_figure("in the balloon at the end", balloon.balloon_bytes_end),
        size_figure("in the balloon, mean", balloon.balloon_bytes_mean),
        _count("targets set", balloon.targets, "targets"),
        _count("targets reached", balloon.targets_reached, "targets"),
        _seconds("longest way to one", balloon.follow_s_max),
        size_figure("inflated", balloon.inflated_bytes),
        size_figure("of it with memory behind", balloon.inflated_returned_bytes),
        size_figure("deflated", balloon.deflated_bytes),
        size_figure("of it out of memory", balloon.oom_bytes),
        _count("times out of memory", balloon.oom_calls, "times"),
        _seconds("vCPUs waited for that", balloon.oom_wait_s),
        _count("batches not filled", balloon.shortfalls, "batches"),
        _count("batches hinted", balloon.hinted_fills, "batches"),
        _count("wishes cut", balloon.wishes_cut, "wishes"),
        _count("guest's figures", balloon.guest_statistics, "times"),
    )
    return (FigureTable("Balloon", figures),)


def _page_cache(summary: Summary) -> tuple[FigureTable, ...]:
    cache = summary.page_cache
    if cache.bytes_end is None:
        return ()
    figures = (
        size_figure("cached at the peak", cache.bytes_peak),
        size_figure("cached at the end", cache.bytes_end),
        size_figure("cached, mean", cache.bytes_mean),
        size_figure("of it mapped", cache.mapped_bytes_end),
        size_figure("of it at the host, too", cache.duplicate_bytes_end),
        size_figure("in both, mean", cache.duplicate_bytes_mean),
        size_figure("in the host's own cache", cache.host_cache_bytes_end),
        size_figure("dirty at the peak", cache.dirty_bytes_peak),
        size_figure("dirty at the end", cache.dirty_bytes_end),
        size_figure("read from the host", cache.host_read_bytes),
        size_figure("of it from the disk", cache.disk_read_bytes),
        _seconds("vCPUs waited for that", cache.read_wait_s),
        size_figure("written back", cache.written_bytes),
        size_figure("reclaimed by kswapd", cache.kswapd_bytes),
        size_figure("reclaimed directly", cache.direct_bytes),
        size_figure("reclaimed in the node", cache.node_bytes),
        size_figure("reclaimed cache first", cache.cache_first_bytes),
        size_figure("as too much unmapped", cache.unmapped_control_bytes),
        size_figure("dropped", cache.dropped_bytes),
    )
    return (FigureTable("Page cache", figures),)


def _cost(summary: Summary) -> FigureTable:
    cost = summary.cost
    hold = cost.zone_lock_hold_us
    holds = tuple(
        Figure(f"zone lock held, {name}", microseconds_text(value), exact_text(value, "us"))
        for name, value in (
            ("p50", hold.p50 if hold else None),
            ("p99", hold.p99 if hold else None),
            ("max", hold.max if hold else None),
        )
    )
    # Real processes cannot tell these from their work: shown where a run in virtual time has them.
    paid = tuple(
        _seconds(label, seconds)
        for label, seconds in (
            ("vCPUs in host faults", cost.vcpu_fault_s),
            ("vCPUs stopped by discards", cost.vcpu_interrupted_s),
            ("vCPUs behind hinting task", cost.vcpu_displaced_s),
        )
        if seconds is not None
    )
    return FigureTable(
        "Cost",
        (
            _seconds("CPU per GiB returned", cost.cpu_s_per_gib_returned),
            *holds,
            _seconds("zone lock waited for", cost.zone_lock_wait_s),
            *paid,
        ),
    )


def _vcpus(summary: Summary) -> FigureTable:
    vcpus = summary.vcpus
    latency = vcpus.alloc_latency_ns
    latencies = tuple(
        Figure(f"allocation, {name}", nanoseconds_text(value), exact_text(value, "ns"))
        for name, value in (
            ("p50", latency.p50 if latency else None),
            ("p99", latency.p99 if latency else None),
            ("p99.9", latency.p999 if latency else None),
        )
    )
    rate, touched = vcpus.operations_per_s, vcpus.pages_touched_per_s
    return FigureTable(
        "vCPUs",
        (
            _count("operations", vcpus.operations, "operations"),
            Figure("operations per second", rate_text(rate), exact_text(rate, "per second")),
            Figure("pages touched", rate_text(touched), exact_text(touched, "pages per second")),
            _count("failed allocations", vcpus.failed_allocations, "allocations"),
            _count("lost", vcpus.lost, "vCPUs", bad=bool(vcpus.lost)),
            *latencies,
        ),
    )


def _stranded(summary: Summary) -> FigureTable:
    figures = tuple(size_figure(label, size) for label, _, size in stranded_parts(summary))
    return FigureTable("Free, yet not returned", figures)


def _oracle(summary: Summary) -> FigureTable:
    oracle = summary.oracle
    return FigureTable(
        "Oracle",
        (
            _count("pages checked", oracle.pages_checked, "pages"),
            _count(
                "discarded while in use",
                oracle.violations,
                "pages",
                bad=bool(oracle.violations),
            ),
        ),
    )


def _own(title: str, named: Mapping[str, Any]) -> tuple[FigureTable, ...]:
    figures = tuple(Figure(label_of(key), *keyed_text(key, value)) for key, value in _flat(named))
    return (FigureTable(title, figures),) if figures else ()


def _flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in figures.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif not isinstance(value, list):  # What is counted over the time is drawn.
            yield name, value
