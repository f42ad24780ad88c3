"""Which figures of a run are compared, which way is better, and how fine they can be told apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from emulator.config.scenario import Scenario
from emulator.guest.mm.layout import BUCKETS_PER_OCTAVE
from emulator.summary import StrandedFigures
from emulator.workloads.registry import load_workload

Better = Literal["less", "more", "neither"]

#: The noise floor: what repeating does not average out, such as where code and data happen to lie.
FLOOR: Final = 0.01
#: A percentile is read from a histogram: its neighbour differs by one bucket, which may mean less.
PERCENTILE_FLOOR: Final = 1 / BUCKETS_PER_OCTAVE


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFigure:
    """A figure by its path in the summary; `floor_fraction` is of the baseline's mean."""

    metric: str
    better: Better = "less"
    floor_fraction: float = FLOOR


FIGURES: Final = (
    ComparedFigure(metric="host.footprint_gib_min"),
    ComparedFigure(metric="host.resident_bytes_end"),
    ComparedFigure(metric="hinting.reclaim_latency_ms.p50", floor_fraction=PERCENTILE_FLOOR),
    ComparedFigure(metric="hinting.reclaim_latency_ms.p99", floor_fraction=PERCENTILE_FLOOR),
    ComparedFigure(metric="cost.cpu_s_per_gib_returned"),
    ComparedFigure(metric="hinting.regret"),
    ComparedFigure(metric="cost.zone_lock_hold_us.p99", floor_fraction=PERCENTILE_FLOOR),
    ComparedFigure(metric="vcpus.operations_per_s", better="more"),
    ComparedFigure(metric="vcpus.failed_allocations"),
    *(ComparedFigure(metric=f"stranded.{cause}") for cause in StrandedFigures.__struct_fields__),
)

#: Besides, of a guest that has a balloon beside its mechanism: who takes what back.
BALLOON_FIGURES: Final = (
    ComparedFigure(metric="balloon.inflated_returned_bytes", better="neither"),
    ComparedFigure(metric="hinting.claimed_bytes", better="neither"),
    ComparedFigure(metric="hinting.returned_bytes", better="neither"),
)

#: Besides, of a guest whose workload has files: where its memory was, over the time of the run.
CACHE_FIGURES: Final = (
    ComparedFigure(metric="guest.free_bytes_mean", better="more"),
    ComparedFigure(metric="page_cache.bytes_mean", better="neither"),
    ComparedFigure(metric="page_cache.host_cache_bytes_mean", better="neither"),
    ComparedFigure(metric="page_cache.duplicate_bytes_mean"),
    ComparedFigure(metric="page_cache.read_wait_s"),
    ComparedFigure(metric="host.resident_bytes_mean"),
)

#: Besides, of a host that has a swap: where what its limit leaves no room for shows.
SWAP_FIGURES: Final = (
    ComparedFigure(metric="host.swapped_bytes_peak"),
    ComparedFigure(metric="host.swap_wait_s"),
)


def figures_of(scenario: Scenario) -> tuple[ComparedFigure, ...]:
    """What is compared under a scenario: `FIGURES`, what is said of a balloon, of a page cache
    and of a swap if it has one, and what its workload names of its own."""
    workload = load_workload(
        scenario.workload.kind, scenario.workload.parameters, where=scenario.where("workload")
    )
    own: Mapping[str, Better] = getattr(workload, "compared", {})
    balloon = () if scenario.balloon is None else BALLOON_FIGURES
    cached = CACHE_FIGURES if hasattr(workload, "file_pages") else ()
    return (
        *FIGURES,
        *balloon,
        *cached,
        *(() if scenario.host.swap_bytes is None else SWAP_FIGURES),
        *(ComparedFigure(metric=f"workload.{name}", better=it) for name, it in own.items()),
    )


#: Not a matter of more or less: one is too many, and no interval makes it none.
VIOLATIONS: Final = "oracle.violations"
