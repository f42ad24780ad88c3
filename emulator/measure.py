"""From what a run left in shared memory to its summary."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emulator.guest.cost import VcpusPaid
from emulator.guest.histogram import percentile
from emulator.guest.kernel_task import Standing
from emulator.guest.mm.layout import ACTOR_LOST, PAGE_SIZE
from emulator.machine import Machine
from emulator.sampler import Sampler, swap_pages
from emulator.summary import (
    AllocLatency,
    BalloonFigures,
    CostFigures,
    GuestFigures,
    HintingFigures,
    HostFigures,
    LockHold,
    OracleFigures,
    PageCacheFigures,
    Phase,
    ReclaimLatency,
    SeriesRow,
    StrandedFigures,
    Summary,
    VcpuFigures,
)
from emulator.workloads.workload import Outcome

_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """How long a run took, and what it cost; None where it is not measured."""

    began_s: float  # on the guest's clock
    ended_s: float
    wall_s: float
    virtual: bool
    host_cpu_s: float | None
    guest_kernel_cpu_s: float | None
    vcpus_paid_s: VcpusPaid | None = None  # in virtual time, by a scenario's [cost]


def summarize(machine: Machine, sampler: Sampler, standing: Standing, times: RunTimes) -> Summary:
    """The summary of a run that has ended; the first sample was taken at its beginning."""
    rows = sampler.rows
    scenario, guest, host = machine.scenario, machine.guest, machine.host[0]
    actors = guest["actors"]
    vcpus = actors[:-1]
    elapsed_s = times.ended_s - times.began_s
    phases = phases_of(machine.phases(), sampler.noted, times.began_s)
    busy_s = busy_seconds(phases) or elapsed_s
    operations, touched = int(vcpus["operations"].sum()), int(vcpus["pages_touched"].sum())
    violations = int(actors["violations"].sum())
    outcome = Outcome(
        vcpus=len(vcpus),
        pages_touched=touched,
        operations=operations,
        violations=violations,
        elapsed_s=elapsed_s,
    )
    return Summary(
        scenario=scenario.name,
        mechanism=machine.mechanism.name,
        launcher=scenario.run.launcher,
        seed=scenario.run.seed,
        wall_s=times.wall_s,
        virtual_s=elapsed_s if times.virtual else None,
        guest=GuestFigures(
            memory_bytes=scenario.guest.memory_bytes,
            vcpus=scenario.guest.vcpus,
            ram=scenario.guest.ram,
            page_metadata_bytes=metadata_bytes(guest),
            free_bytes_mean=mean_over_time(rows, "guest_free_bytes"),
        ),
        host=host_figures(rows, times.host_cpu_s, [machine]),
        hinting=hinting_figures(guest["hinting"][0], host, own_figures(machine)),
        balloon=balloon_figures(guest, host, rows, times),
        page_cache=page_cache_figures(guest, rows, times),
        cost=cost_figures(actors, host, times),
        vcpus=VcpuFigures(
            operations=operations,
            operations_per_s=operations / busy_s if busy_s else None,
            pages_touched_per_s=touched / busy_s if busy_s else None,
            failed_allocations=int(vcpus["failed_allocations"].sum()),
            lost=int((vcpus["state"] == ACTOR_LOST).sum()),
            alloc_latency_ns=alloc_latency(vcpus["alloc_latency_ns"].sum(axis=0)),
        ),
        stranded=StrandedFigures(
            below_order_bytes=standing.below_order,
            unreported_bytes=standing.unreported,
            percpu_bytes=standing.percpu,
            page_cache_bytes=standing.page_cache,
            in_flight_bytes=standing.isolated,
        ),
        oracle=OracleFigures(
            pages_checked=int(actors["pages_checked"].sum()), violations=violations
        ),
        workload=machine.workload.figures(outcome, machine.workload_arrays()),
        phases=phases,
    )


def metadata_bytes(guest: Mapping[str, npt.NDArray[Any]]) -> int:
    """What the guest's memory management itself occupies."""
    return sum(guest[name].nbytes for name in ("pages", "pageblocks", "zones", "pcps"))


def mean_over_time(rows: Sequence[SeriesRow], name: str) -> int | None:
    """A column's mean, each sample lasting halfway to its neighbours; None if one is missing."""
    values = [getattr(row, name) for row in rows]
    if not values or None in values:
        return None
    time_s = [row.time_s for row in rows]
    lasted_s = time_s[-1] - time_s[0]
    if lasted_s <= 0:
        return int(values[-1])
    return round(float(np.trapezoid(values, time_s)) / lasted_s)


def host_figures(
    rows: Sequence[SeriesRow], cpu_s: float | None, machines: Sequence[Machine] = ()
) -> HostFigures:
    """Residency over the run, what it left free, and what of these guests was swapped out."""
    resident = np.array([row.resident_bytes or 0 for row in rows], dtype=np.float64)
    time_s = np.array([row.time_s for row in rows])
    footprint = np.trapezoid(resident, time_s) / _GIB / 60
    return HostFigures(
        resident_bytes_start=int(resident[0]),
        resident_bytes_peak=int(resident.max()),
        resident_bytes_end=int(resident[-1]),
        resident_bytes_mean=mean_over_time(rows, "resident_bytes"),
        footprint_gib_min=float(footprint),
        cpu_s=cpu_s,
        free_bytes_mean=_free_of_host(machines, rows),
        huge_faults=_huge_faults(machines),
        **swap_figures(machines, rows),
    )


def _huge_faults(machines: Sequence[Machine]) -> int | None:
    if not any(machine.ram.huge for machine in machines):
        return None
    return sum(int(machine.guest["actors"]["huge_faults"].sum()) for machine in machines)


def _free_of_host(machines: Sequence[Machine], rows: Sequence[SeriesRow]) -> int | None:
    """Mean of what guests and the host's cache of their disks leave of its memory, if these are all
    of its guests.  The cache is taken to give way to them: where both do not fit, nothing is free.
    """
    if not machines or machines[0].scenario.guests.count != len(machines):
        return None
    memory_bytes = machines[0].scenario.host.memory_bytes
    if memory_bytes is None:
        return None
    held = [(row.time_s, (row.resident_bytes or 0) + (row.host_cache_bytes or 0)) for row in rows]
    free = [SeriesRow(time_s=at, resident_bytes=max(0, memory_bytes - it)) for at, it in held]
    return mean_over_time(free, "resident_bytes")


def swap_figures(machines: Sequence[Machine], rows: Sequence[SeriesRow]) -> dict[str, Any]:
    """Those of HostFigures that are about the swap; none where there is none."""
    found = [swap_pages(machine.ram, machine.host) for machine in machines]
    swaps = [one for one in found if one is not None]
    if not swaps:
        return {}
    waited_ns = sum(int(machine.ram.swap_view().traffic["waited_ns"].sum()) for machine in machines)
    return {
        "swapped_bytes_peak": max(row.swapped_bytes or 0 for row in rows),
        "swapped_bytes_end": sum(one.inside for one in swaps) * PAGE_SIZE,
        "swap_out_bytes": sum(one.out for one in swaps) * PAGE_SIZE,
        "swap_in_bytes": sum(one.back for one in swaps) * PAGE_SIZE,
        "swap_dropped_bytes": sum(one.dropped for one in swaps) * PAGE_SIZE,
        "swap_wait_s": waited_ns / 1e9,
        "swap_full": max(int(machine.host[0]["swap_full"]) for machine in machines),
    }


def own_figures(machine: Machine) -> dict[str, Any] | None:
    """What the mechanism counts itself, if it does."""
    figures = getattr(machine.mechanism, "figures", None)
    return None if figures is None else dict(figures(machine.memory()))


def hinting_figures(hinting: Any, host: Any, own: dict[str, Any] | None) -> HintingFigures:
    """What was reported, what came back, how soon, and what was wanted back."""
    returned, refaulted = int(host["returned_bytes"]), int(host["refaulted_bytes"])
    return HintingFigures(
        reports=int(hinting["reports"]),
        blocks=int(hinting["blocks"]),
        claimed_bytes=int(hinting["claimed_bytes"]),
        returned_bytes=returned,
        refaulted_bytes=refaulted,
        regret=refaulted / returned if returned else None,
        wakeups=int(hinting["wakeups"]),
        reclaim_latency_ms=reclaim_latency(hinting["reclaim_latency_ns"]),
        mechanism=own,
    )


def reclaim_latency(counts: npt.NDArray[Any]) -> ReclaimLatency:
    """Percentiles of the discards' latencies."""
    return ReclaimLatency(
        p50=scaled(percentile(counts, 0.5), 1e-6),
        p90=scaled(percentile(counts, 0.9), 1e-6),
        p99=scaled(percentile(counts, 0.99), 1e-6),
        max=scaled(percentile(counts, 1.0), 1e-6),
    )


def balloon_figures(
    guest: Mapping[str, npt.NDArray[Any]], host: Any, rows: Sequence[SeriesRow], times: RunTimes
) -> BalloonFigures:
    """What the balloon did; nothing is measured where the guest has none.

    What vCPUs wait for is round trips, which take no virtual time unless they have a price.
    """
    known = not times.virtual or times.vcpus_paid_s is not None
    if "balloon" not in guest:
        return BalloonFigures()
    balloon = guest["balloon"][0]
    reached = int(balloon["reached"])
    return BalloonFigures(
        target_bytes_end=int(balloon["target_pages"]) * PAGE_SIZE,
        balloon_bytes_end=int(balloon["pages"]) * PAGE_SIZE,
        balloon_bytes_mean=mean_over_time(rows, "balloon_bytes"),
        inflated_bytes=int(balloon["inflated_pages"]) * PAGE_SIZE,
        inflated_returned_bytes=int(host["inflated_returned_bytes"]),
        deflated_bytes=int(balloon["deflated_pages"]) * PAGE_SIZE,
        targets=int(host["targets"]),
        targets_reached=reached,
        follow_s_max=int(balloon["follow_ns_max"]) / 1e9 if reached else None,
        shortfalls=int(balloon["shortfalls"]),
        hinted_fills=int(balloon["hinted_fills"]),
        oom_calls=int(balloon["oom_calls"]),
        oom_bytes=int(balloon["oom_pages"]) * PAGE_SIZE,
        oom_wait_s=int(guest["shortages"]["waited_ns"].sum()) / 1e9 if known else None,
        wishes_cut=int(host["wishes_cut"]),
        guest_statistics=int(host["guest_statistics"]),
    )


def page_cache_figures(
    guest: Mapping[str, npt.NDArray[Any]], rows: Sequence[SeriesRow], times: RunTimes
) -> PageCacheFigures:
    """What the page cache did; nothing is measured where the guest has none."""
    if "page_cache.control" not in guest:
        return PageCacheFigures()
    found = guest["page_cache.control"][0]

    def size(name: str) -> int:
        return int(found[name]) * PAGE_SIZE

    reads = int(found["reads"])
    return PageCacheFigures(
        bytes_peak=max(row.page_cache_bytes or 0 for row in rows),
        bytes_end=size("pages"),
        bytes_mean=mean_over_time(rows, "page_cache_bytes"),
        mapped_bytes_end=size("mapped_pages"),
        dirty_bytes_peak=max(row.dirty_bytes or 0 for row in rows),
        dirty_bytes_end=size("dirty_pages") + size("writeback_pages"),
        host_cache_bytes_end=size("host_cache_pages"),
        host_cache_bytes_mean=mean_over_time(rows, "host_cache_bytes"),
        duplicate_bytes_end=size("duplicate_pages"),
        duplicate_bytes_mean=mean_over_time(rows, "duplicate_bytes"),
        hit_rate=1 - int(found["missed_pages"]) / reads if reads else None,
        host_reads=int(found["host_reads"]),
        host_read_bytes=size("host_read_pages"),
        disk_read_bytes=size("disk_read_pages"),
        read_wait_s=_waited_s(guest["page_cache.io"]) if times.virtual else None,
        written_bytes=size("written_pages"),
        kswapd_bytes=size("kswapd_pages"),
        direct_bytes=size("direct_pages"),
        node_bytes=size("node_pages"),
        cache_first_bytes=size("cache_first_pages"),
        unmapped_control_bytes=size("unmapped_control_pages"),
        dropped_bytes=size("dropped_pages"),
        scanned_bytes=size("scanned_pages"),
        kswapd_runs=int(found["kswapd_runs"]),
    )


def _waited_s(io: npt.NDArray[Any]) -> float:
    return int(io["waited_ns"].sum()) / 1e9


def cost_figures(actors: npt.NDArray[Any], host: Any, times: RunTimes) -> CostFigures:
    """What it cost; in virtual time by the prices of [cost], and without these not known."""
    paid = times.vcpus_paid_s
    if times.virtual and paid is None:
        return CostFigures()
    returned_gib = int(host["returned_bytes"]) / _GIB
    cpu_s = None
    if times.host_cpu_s is not None and times.guest_kernel_cpu_s is not None:
        cpu_s = times.host_cpu_s + times.guest_kernel_cpu_s
    return CostFigures(
        cpu_s_per_gib_returned=cpu_s / returned_gib if cpu_s is not None and returned_gib else None,
        zone_lock_hold_us=lock_hold(actors),
        zone_lock_wait_s=float(actors["lock_wait_ns"].sum()) / 1e9,
        vcpu_fault_s=None if paid is None else paid.fault_s,
        vcpu_interrupted_s=None if paid is None else paid.interrupted_s,
        vcpu_displaced_s=None if paid is None else paid.displaced_s,
    )


def lock_hold(actors: npt.NDArray[Any]) -> LockHold:
    """How long zone locks were held by these actors."""
    hold = actors["lock_hold_ns"].sum(axis=0)
    return LockHold(
        p50=scaled(percentile(hold, 0.5), 1e-3),
        p99=scaled(percentile(hold, 0.99), 1e-3),
        max=int(actors["lock_hold_max_ns"].max()) / 1e3 if hold.any() else None,
    )


def alloc_latency(counts: npt.NDArray[Any]) -> AllocLatency:
    """Percentiles of the timed allocations."""
    return AllocLatency(
        p50=percentile(counts, 0.5), p99=percentile(counts, 0.99), p999=percentile(counts, 0.999)
    )


def scaled(value: float | None, factor: float) -> float | None:
    """None stays None."""
    return None if value is None else value * factor


def phases_of(
    phases: npt.NDArray[Any], noted: Sequence[tuple[float, int]], began_s: float
) -> list[Phase]:
    """The workload's phases over all vCPUs, in order: from the first that begins it to the last
    that leaves it.  `noted`: (time, resident bytes), between which is interpolated."""
    noted = sorted(noted)
    found: dict[str, tuple[float, float, int]] = {}
    for entries in phases:
        used = entries[entries["used"] != 0]
        for this, following in itertools.pairwise(used):
            name = this["name"].decode()
            start_s, end_s = this["began_ns"] / 1e9 - began_s, following["began_ns"] / 1e9 - began_s
            done = int(following["operations"] - this["operations"])
            before = found.get(name)
            if before is not None:
                start_s, end_s = min(before[0], start_s), max(before[1], end_s)
                done += before[2]
            found[name] = (start_s, end_s, done)
    return [
        Phase(
            name=name,
            start_s=round(start_s, 6),
            end_s=round(end_s, 6),
            resident_bytes_start=_resident_at(noted, start_s),
            resident_bytes_end=_resident_at(noted, end_s),
            operations=done,
        )
        for name, (start_s, end_s, done) in sorted(found.items(), key=lambda item: item[1][0])
    ]


def _resident_at(noted: Sequence[tuple[float, int]], at_s: float) -> int | None:
    if not noted:
        return None
    times, resident = zip(*noted, strict=True)
    return int(np.interp(at_s, times, resident))


def busy_seconds(phases: Sequence[Phase]) -> float:
    """Time spent in phases that did something: rates are over these, not over idle time."""
    return sum(phase.end_s - phase.start_s for phase in phases if phase.operations)
