"""What a run measured: `summary.json` (schema 1) and a row of `series.csv`, as types.

Units are in the names.  A figure that was not measured is None (`null`, or an empty cell), never 0.
The structs hold what they are given; reading a file checks it.
"""

from collections.abc import Iterable
from typing import Any, Final, NoReturn, TypeVar, get_args, get_type_hints

import msgspec

from emulator.capacity.figures import CapacityFigures, FitFigures
from emulator.config.expectations import Expectation
from emulator.config.parameters import suggest
from emulator.config.units import Number
from emulator.errors import ConfigError

SCHEMA: Final = 1
_LISTS: Final = ("phases", "guests", "fits")

T = TypeVar("T")


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the summary; everything in it may be unmeasured."""


class ReclaimLatency(_Section, frozen=True):
    """Milliseconds from the last free of a block to the end of its discard."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class LockHold(_Section, frozen=True):
    """Microseconds that the zone lock was held at a time."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class AllocLatency(_Section, frozen=True):
    """Nanoseconds that an allocation took."""

    p50: float | None = None
    p99: float | None = None
    p999: float | None = None


class GuestFigures(_Section, frozen=True):
    """The guest as it was made, and what it had free.  A `_mean` is over the time of the run."""

    memory_bytes: int | None = None
    vcpus: int | None = None
    ram: str | None = None
    page_metadata_bytes: int | None = None
    free_bytes_mean: int | None = None


class HostFigures(_Section, frozen=True):
    """What the guest held of the host's memory, and what serving it cost."""

    resident_bytes_start: int | None = None
    resident_bytes_peak: int | None = None
    resident_bytes_end: int | None = None
    footprint_gib_min: float | None = None  # Resident memory integrated over time, GiB minutes.
    cpu_s: float | None = None
    # Of a host that has a swap.
    swapped_bytes_peak: int | None = None
    swapped_bytes_end: int | None = None
    swap_out_bytes: int | None = None
    swap_in_bytes: int | None = None
    swap_dropped_bytes: int | None = None  # Discarded there.
    swap_wait_s: float | None = None  # What the guest's actors waited for the host, in sum.
    swap_full: int | None = None  # How often the host was over its limit without room for more.
    resident_bytes_mean: int | None = None
    free_bytes_mean: int | None = None  # Of `host.memory`, what its own cache leaves as well.
    huge_faults: int | None = None  # Touches that got 2 MiB at once, if it has huge pages.


class HintingFigures(_Section, frozen=True):
    """What the mechanism reported, and what became of it."""

    reports: int | None = None
    blocks: int | None = None
    claimed_bytes: int | None = None  # By the reports.
    returned_bytes: int | None = None  # As measured.
    refaulted_bytes: int | None = None  # Returned, then touched again.
    regret: float | None = None
    wakeups: int | None = None
    reclaim_latency_ms: ReclaimLatency | None = None
    mechanism: dict[str, Any] | None = None  # Figures of the mechanism's own, units in the names.


class BalloonFigures(_Section, frozen=True):
    """The balloon, if the guest has one."""

    target_bytes_end: int | None = None  # How large the host wanted it.
    balloon_bytes_end: int | None = None
    inflated_bytes: int | None = None  # Counted among the claimed ones, too.
    deflated_bytes: int | None = None
    targets: int | None = None  # How often the target was changed.
    targets_reached: int | None = None
    follow_s_max: float | None = None  # The longest way to a target that was reached.
    shortfalls: int | None = None  # Batches that the guest could not fill.
    oom_calls: int | None = None
    oom_bytes: int | None = None  # Given back because a vCPU was out of memory.
    oom_wait_s: float | None = None  # What vCPUs waited for that, in sum.
    wishes_cut: int | None = None  # By a manager that asked for what cannot be.
    guest_statistics: int | None = None  # How often the guest's figures came.
    inflated_returned_bytes: int | None = None  # Of the inflated ones, those with memory behind.
    balloon_bytes_mean: int | None = None
    hinted_fills: int | None = None  # Batches for which page cache was to be reclaimed first.


class PageCacheFigures(_Section, frozen=True):
    """The guest's page cache, if its workload has files."""

    bytes_peak: int | None = None
    bytes_end: int | None = None
    mapped_bytes_end: int | None = None
    dirty_bytes_peak: int | None = None  # Or on its way to the disk.
    dirty_bytes_end: int | None = None
    host_cache_bytes_end: int | None = None  # Of the disk image, in the host's own page cache.
    duplicate_bytes_end: int | None = None  # Of that, in the guest's cache as well.
    hit_rate: float | None = None  # Pages read without a request to the host, of all.
    host_reads: int | None = None  # Requests.
    host_read_bytes: int | None = None  # Read-ahead included.
    disk_read_bytes: int | None = None  # Of that, not in the host's cache.
    written_bytes: int | None = None  # By write-back.
    kswapd_bytes: int | None = None  # Reclaimed, by whom.
    direct_bytes: int | None = None
    node_bytes: int | None = None
    dropped_bytes: int | None = None  # Because caches were dropped.
    scanned_bytes: int | None = None
    kswapd_runs: int | None = None
    bytes_mean: int | None = None
    host_cache_bytes_mean: int | None = None
    duplicate_bytes_mean: int | None = None
    read_wait_s: float | None = None  # What vCPUs waited for reads, in sum; in virtual time.
    cache_first_bytes: int | None = None  # For the balloon, by its allocations' flag.
    unmapped_control_bytes: int | None = None  # Because more was unmapped than should be.


class CostFigures(_Section, frozen=True):
    """What giving memory back cost."""

    cpu_s_per_gib_returned: float | None = None
    zone_lock_hold_us: LockHold | None = None
    zone_lock_wait_s: float | None = None
    # Of all vCPUs together, by the prices of a run in virtual time.
    vcpu_fault_s: float | None = None  # On pages that the host had nothing behind.
    vcpu_interrupted_s: float | None = None  # By discards, which flush TLBs.
    vcpu_displaced_s: float | None = None  # While the hinting task ran on their processors.


class VcpuFigures(_Section, frozen=True):
    """All vCPUs together."""

    operations: int | None = None
    operations_per_s: float | None = None
    pages_touched_per_s: float | None = None
    failed_allocations: int | None = None
    alloc_latency_ns: AllocLatency | None = None
    lost: int | None = None  # Those whose process died; what they held was taken back.


class StrandedFigures(_Section, frozen=True):
    """Memory that was free at the end and had not been returned, by cause."""

    below_order_bytes: int | None = None
    percpu_bytes: int | None = None
    page_cache_bytes: int | None = None
    in_flight_bytes: int | None = None
    unreported_bytes: int | None = None  # Large enough to be reported, and not reported yet.


class OracleFigures(_Section, frozen=True):
    """Pages whose content was verified, and those that had been discarded while in use."""

    pages_checked: int | None = None
    violations: int | None = None


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the run that the workload names."""

    name: str
    start_s: float
    end_s: float
    resident_bytes_start: int | None = None
    resident_bytes_end: int | None = None
    operations: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """`summary.json`, schema 1."""

    schema: int = SCHEMA
    scenario: str
    mechanism: str
    launcher: str
    seed: int
    wall_s: float | None = None
    virtual_s: float | None = None
    guest: GuestFigures = GuestFigures()
    host: HostFigures = HostFigures()
    hinting: HintingFigures = HintingFigures()
    balloon: BalloonFigures = BalloonFigures()
    page_cache: PageCacheFigures = PageCacheFigures()
    cost: CostFigures = CostFigures()
    vcpus: VcpuFigures = VcpuFigures()
    stranded: StrandedFigures = StrandedFigures()
    oracle: OracleFigures = OracleFigures()
    capacity: CapacityFigures = CapacityFigures()
    workload: dict[str, Any] = {}  # Figures of the workload's own, units in the names.
    phases: list[Phase] = []
    guests: list["Summary"] = []  # Of each, if there are several; the rest is of all together.


class SeriesRow(msgspec.Struct, frozen=True, kw_only=True):
    """One sample: a row of `series.csv`."""

    time_s: float
    resident_bytes: int | None = None
    guest_free_bytes: int | None = None
    guest_reported_bytes: int | None = None
    page_cache_bytes: int | None = None
    balloon_bytes: int | None = None
    operations: int | None = None
    reports: int | None = None
    dirty_bytes: int | None = None
    host_cache_bytes: int | None = None
    swapped_bytes: int | None = None
    balloon_target_bytes: int | None = None  # How large the host wants it.
    duplicate_bytes: int | None = None  # Of that, in the guest's page cache as well.


class ExpectationResult(msgspec.Struct, frozen=True, kw_only=True):
    """An expectation beside the figure it was held against, and whether it was met."""

    metric: str
    value: Any  # None: the figure was not measured, and so the expectation is not met.
    passed: bool
    at_least: Number | None = None
    at_most: Number | None = None
    equals: Number | str | None = None


def to_json(summary: Summary) -> str:
    """The text of `summary.json`, indented; NaN and infinities are written as null.

    `guests` is there only if there are several.
    """
    document = msgspec.to_builtins(summary, enc_hook=_plain)
    for one in (document, *document["guests"]):
        if not one["guests"]:
            del one["guests"]
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def from_json(text: str | bytes, *, where: str = "summary.json") -> Summary:
    """A summary from its text.

    Raises `ConfigError` that begins with `where`: no JSON, another schema, missing or bad figures.
    """
    return decode_document(text, Summary, SCHEMA, where=where)


def decode_document(text: str | bytes, kind: type[T], schema: int, *, where: str) -> T:
    """A document of a kind that has a `schema`; raises `ConfigError` as `from_json` does."""
    try:
        version = msgspec.json.decode(text, type=_Version, strict=True).schema
        if version != schema:
            raise ConfigError(f"{where}: has schema {version}; this version reads schema {schema}")
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: damaged: {str(error).replace('`', '')}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: damaged: not JSON: {error}") from None


def lookup(summary: Summary, metric: str) -> Any:
    """The figure at a dotted path: `host.resident_bytes_end`, `workload.faults`, `phases.0.end_s`.

    A phase is found by its number or by its name.  A figure inside something that was not
    measured is None, like that itself.
    Raises `ConfigError` if the summary has no such figure.
    """
    node: Any = summary
    parts = metric.split(".")
    for depth, part in enumerate(parts):
        if node is None:
            check_metric(metric)
            return None
        if isinstance(node, list):
            numbered = dict(enumerate(node))
            named = {phase.name: phase for phase in reversed(node) if isinstance(phase, Phase)}
            choices = {str(number): item for number, item in numbered.items()} | named
        elif isinstance(node, msgspec.Struct):
            choices = {name: getattr(node, name) for name in node.__struct_fields__}
        else:
            choices = node if isinstance(node, dict) else {}
        if part not in choices:
            _no_such_figure(".".join(parts[: depth + 1]), part, choices)
        node = choices[part]
    if isinstance(node, msgspec.Struct | dict | list):
        _not_a_figure(metric, node)
    return node


def check_metric(metric: str) -> None:
    """Raise `ConfigError` if no summary can have this figure: before a run, not after it.

    What a workload measures of its own, and which phases it has, only the run will tell.
    """
    kind: Any = Summary
    parts = metric.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[: depth + 1])
        if depth and parts[depth - 1] in _LISTS and kind in (Phase, Summary, FitFigures):
            continue  # A phase's number or name, or a guest's number.
        fields = _fields(kind)
        if part not in fields:
            _no_such_figure(where, part, fields)
        kind = fields[part]
        if kind is dict and depth + 1 < len(parts):
            return
    if kind is not None:
        raise ConfigError(f"{metric}: not a figure; write {metric}.NAME")


def check(expectations: Iterable[Expectation], summary: Summary) -> list[ExpectationResult]:
    """Hold the expectations against a summary, in their order.

    Raises `ConfigError` for a metric that the summary does not have.
    """
    results = []
    for expectation in expectations:
        value = lookup(summary, expectation.metric)
        bounds = msgspec.structs.asdict(expectation)
        results.append(ExpectationResult(**bounds, value=value, passed=expectation.holds(value)))
    return results


def is_sound(summary: Summary, results: Iterable[ExpectationResult]) -> bool:
    """Whether every expectation was met, the oracle found no violation and no vCPU was lost."""
    unharmed = not summary.oracle.violations and not summary.vcpus.lost
    return unharmed and all(result.passed for result in results)


class _Version(msgspec.Struct):
    schema: int


def _plain(value: Any) -> Any:
    """A numpy number as Python's own."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"summary.json has no form for {value!r}")


def _fields(kind: Any) -> dict[str, Any]:
    """Field -> the struct it holds, `dict`, or None for a figure."""
    if kind is None:
        return {}
    found: dict[str, Any] = {}
    for name, annotation in get_type_hints(kind).items():
        inside = [getattr(t, "__origin__", t) for t in (annotation, *get_args(annotation))]
        structs = [t for t in inside if isinstance(t, type) and issubclass(t, msgspec.Struct)]
        found[name] = structs[0] if structs else dict if dict in inside else None
    return found


def _no_such_figure(where: str, part: str, allowed: Iterable[str]) -> NoReturn:
    raise ConfigError(f"{where}: the summary has no such figure{suggest(part, allowed)}")


def _not_a_figure(metric: str, node: Any) -> NoReturn:
    inside = node.__struct_fields__ if isinstance(node, msgspec.Struct) else ("NAME",)
    raise ConfigError(f"{metric}: not a figure; write {metric}.{inside[0]} or the like")
