"""The summary of a run with several guests: of all together, and of each.

Of all together:

    sizes, counts and times    the sum over the guests
    `max`                      the largest
    host, latencies            made from all guests' samples and histograms
    phases                     from the first vCPU of any guest that begins one to the last that
                               leaves it
    workload                   the mean over the guests of each number, of what else the first's
    ratios, peaks              not measured (null), where they cannot be made from these
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from emulator.guest.kernel_task import Standing
from emulator.guests import Guests
from emulator.guests_sampler import GuestsSampler
from emulator.measure import (
    RunTimes,
    alloc_latency,
    host_figures,
    lock_hold,
    phases_of,
    reclaim_latency,
    summarize,
)
from emulator.summary import Summary

_RATIOS: Final = ("regret", "hit_rate", "cpu_s_per_gib_returned", "p50", "p90", "p99", "p999")
_GIB: Final = 1 << 30


def summarize_guests(
    guests: Guests,
    sampler: GuestsSampler,
    standings: Sequence[Standing],
    times: Sequence[RunTimes],
    *,
    host_cpu_s: float | None = None,
) -> Summary:
    """The summary of a run that has ended.

    times: of each guest;  host_cpu_s: of the host for all guests, where it is not known for each.
    """
    each = [summarize(*one) for one in zip(guests, sampler.guests, standings, times, strict=True)]
    if len(each) == 1:
        return each[0]
    first = each[0]
    if host_cpu_s is None:
        host_cpu_s = _sum_s(one.host_cpu_s for one in times)
    return msgspec.structs.replace(
        first,
        guest=added([one.guest for one in each]),
        host=host_figures(sampler.rows, host_cpu_s, guests),
        hinting=_hinting(guests, each),
        balloon=added([one.balloon for one in each]),
        page_cache=added([one.page_cache for one in each]),
        cost=_cost(guests, each, host_cpu_s, _sum_s(one.guest_kernel_cpu_s for one in times)),
        vcpus=_vcpus(guests, each),
        stranded=added([one.stranded for one in each]),
        oracle=added([one.oracle for one in each]),
        workload=means([one.workload for one in each]),
        phases=phases_of(
            np.concatenate([guest.phases() for guest in guests]), sampler.noted(), times[0].began_s
        ),
        guests=each,
    )


def _hinting(guests: Guests, each: Sequence[Summary]) -> Any:
    hinting = added([one.hinting for one in each])
    latency = sum(guest.guest["hinting"][0]["reclaim_latency_ns"] for guest in guests)
    returned, refaulted = hinting.returned_bytes, hinting.refaulted_bytes
    return msgspec.structs.replace(
        hinting,
        regret=refaulted / returned if returned else None,
        reclaim_latency_ms=reclaim_latency(latency),
    )


def _sum_s(times_s: Iterable[float | None]) -> float | None:
    known = list(times_s)
    return None if None in known else sum(time_s or 0.0 for time_s in known)


def _cost(
    guests: Guests, each: Sequence[Summary], host_cpu_s: float | None, kernels_cpu_s: float | None
) -> Any:
    cost = added([one.cost for one in each])
    if each[0].cost.zone_lock_hold_us is None:
        return cost
    returned_gib = sum(int(guest.host[0]["returned_bytes"]) for guest in guests) / _GIB
    cpu_s = None
    if host_cpu_s is not None and kernels_cpu_s is not None:
        cpu_s = host_cpu_s + kernels_cpu_s
    return msgspec.structs.replace(
        cost,
        cpu_s_per_gib_returned=cpu_s / returned_gib if cpu_s is not None and returned_gib else None,
        zone_lock_hold_us=lock_hold(np.concatenate([guest.guest["actors"] for guest in guests])),
    )


def _vcpus(guests: Guests, each: Sequence[Summary]) -> Any:
    counts = sum(guest.guest["actors"][:-1]["alloc_latency_ns"].sum(axis=0) for guest in guests)
    vcpus = added([one.vcpus for one in each])
    return msgspec.structs.replace(vcpus, alloc_latency_ns=alloc_latency(counts))


def added(sections: Sequence[Any]) -> Any:
    """Sections of one kind, one of each guest, as one of all; see above."""
    first = sections[0]
    return type(first)(
        **{
            name: _added(name, [getattr(one, name) for one in sections])
            for name in first.__struct_fields__
        }
    )


def _added(name: str, values: Sequence[Any]) -> Any:
    if any(value is None for value in values) or name in _RATIOS or name.endswith("_peak"):
        return None
    if isinstance(values[0], msgspec.Struct):
        return added(values)
    if isinstance(values[0], dict):
        return means(values)
    if isinstance(values[0], str):
        return values[0]
    return max(values) if name.split("_")[-1] == "max" else sum(values)


def means(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each number of `figures`, one of each guest, the mean."""
    found = {}
    for name, value in figures[0].items():
        values = [one.get(name) for one in figures]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values):
            found[name] = None if None in values else value
        else:
            found[name] = numbers[0] if len(set(numbers)) == 1 else sum(numbers) / len(numbers)
    return found
