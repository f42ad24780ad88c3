"""A run made up by hand: figures and samples as a memory hog under page reporting has them.

It is test data for whatever shows or compares runs; no emulator ran for it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulator.config.scenario import Scenario, decode_scenario
from emulator.run_folder import RunFolder
from emulator.summary import (
    AllocLatency,
    BalloonFigures,
    CostFigures,
    GuestFigures,
    HintingFigures,
    HostFigures,
    LockHold,
    OracleFigures,
    Phase,
    ReclaimLatency,
    SeriesRow,
    StrandedFigures,
    Summary,
    VcpuFigures,
)

MIB = 2**20
QUESTION = "How much of what a memory hog leaves behind comes back to the host, and how soon?"

#: Phase, start, end: two rounds of filling the memory and resting.
_PHASES = (
    ("fill", 0.0, 4.2),
    ("idle", 4.2, 14.2),
    ("fill again", 14.2, 18.0),
    ("rest", 18.0, 28.4),
)
_FULL = 972 * MIB
_KERNEL = 11 * MIB
_MEMORY = 1024 * MIB


def sample_scenario(question: str = QUESTION, mechanism: str = "page_reporting") -> Scenario:
    """The scenario of the run: an expectation that is met, one that is not, published figures."""
    return decode_scenario(
        {
            "question": question,
            "guest": {"memory": "1GiB", "vcpus": 2},
            "mechanism": {"name": mechanism},
            "workload": {"kind": "memhog", "fraction": 0.95, "iterations": 2, "idle": "10s"},
            "run": {"launcher": "processes", "seed": 1, "sample": "100ms"},
            "expect": [
                {"metric": "host.resident_bytes_end", "at_most": "200MiB"},
                {"metric": "hinting.reclaim_latency_ms.p99", "at_most": "5s"},
                {"metric": "oracle.violations", "equals": 0},
            ],
            "published": [
                {
                    "what": "What is left at the end",
                    "metric": "host.resident_bytes_end",
                    "figure": 100 * MIB,
                    "source": "a letter that was never written, with a title of some length, 2019",
                },
                {
                    "what": "The price in operations",
                    "metric": "vcpus.operations_per_s",
                    "mechanism": "page_reporting",
                    "against": "off",
                    "figure": "up to -2 %",
                    "source": "the same letter",
                },
            ],
        },
        name="memhog",
        source="scenarios/memhog.toml",
    )


def sample_series(stays_bytes: int = 92 * MIB, delay_s: float = 2.0) -> list[SeriesRow]:
    """A row each 100 ms: memory filled twice, returned block by block after each time."""
    rows = []
    for step in range(285):
        time_s = step / 10
        used, resident = _used_and_resident(time_s, stays_bytes, delay_s)
        rows.append(
            SeriesRow(
                time_s=time_s,
                resident_bytes=resident,
                guest_free_bytes=_MEMORY - _KERNEL - used,
                guest_reported_bytes=max(0, _MEMORY - resident - 20 * MIB) if time_s > 2 else 0,
                page_cache_bytes=0,
                balloon_bytes=0,
                operations=int(
                    min(time_s, 4.2) * 51000 + max(0.0, min(time_s - 14.2, 3.8)) * 52000
                ),
                reports=int(time_s / 28.4 * 62),
            )
        )
    return rows


def _used_and_resident(time_s: float, stays_bytes: int, delay_s: float) -> tuple[int, int]:
    for (_, start_s, full_s), (_, _, end_s) in (_PHASES[:2], _PHASES[2:]):
        if time_s < full_s:
            used = int(_FULL * ((time_s - start_s) / (full_s - start_s)) ** 0.9)
            floor = 0 if start_s == 0 else stays_bytes
            return used, min(_KERNEL + max(used, floor), _KERNEL + _FULL)
        if time_s <= end_s:
            since_s = max(0.0, time_s - full_s - delay_s)
            left = stays_bytes + (_FULL - stays_bytes) * math.exp(-((since_s / 1.9) ** 1.5))
            return 0, _KERNEL + int(left)
    return 0, _KERNEL + stays_bytes


def sample_summary(series: Sequence[SeriesRow] | None = None, **changes: Any) -> Summary:
    """A summary in which everything is measured, made to fit the series."""
    rows = sample_series() if series is None else series
    resident = [row.resident_bytes or 0 for row in rows]
    stays = resident[-1] - _KERNEL
    figures: dict[str, Any] = {
        "scenario": "memhog",
        "mechanism": "page_reporting",
        "launcher": "processes",
        "seed": 1,
        "wall_s": 28.4,
        "guest": GuestFigures(
            memory_bytes=_MEMORY, vcpus=2, ram="memfd", page_metadata_bytes=4 * MIB
        ),
        "host": HostFigures(
            resident_bytes_start=resident[0],
            resident_bytes_peak=max(resident),
            resident_bytes_end=resident[-1],
            footprint_gib_min=sum(resident) / 2**30 * 0.1 / 60,
            cpu_s=0.214,
        ),
        "hinting": HintingFigures(
            reports=62,
            blocks=882,
            claimed_bytes=1764 * MIB,
            returned_bytes=1760 * MIB,
            refaulted_bytes=880 * MIB,
            regret=0.5,
            wakeups=19,
            reclaim_latency_ms=ReclaimLatency(p50=3312.4, p90=5120.0, p99=6480.0, max=8402.7),
        ),
        "balloon": BalloonFigures(
            target_bytes_end=0,
            balloon_bytes_end=0,
            inflated_bytes=24 * MIB,
            deflated_bytes=24 * MIB,
            targets=5,
            targets_reached=4,
            follow_s_max=0.75,
            shortfalls=2,
            oom_calls=3,
            oom_bytes=3 * MIB,
            oom_wait_s=0.002,
            wishes_cut=1,
            guest_statistics=28,
        ),
        "cost": CostFigures(
            cpu_s_per_gib_returned=0.1246,
            zone_lock_hold_us=LockHold(p50=0.42, p99=18.5, max=412.0),
            zone_lock_wait_s=0.0183,
        ),
        "vcpus": VcpuFigures(
            operations=411_800,
            operations_per_s=51_475.0,
            pages_touched_per_s=62_208.0,
            failed_allocations=0,
            lost=0,
            alloc_latency_ns=AllocLatency(p50=61.0, p99=740.0, p999=18_400.0),
        ),
        "stranded": StrandedFigures(
            below_order_bytes=int(stays * 0.72),
            percpu_bytes=int(stays * 0.17),
            page_cache_bytes=0,
            in_flight_bytes=int(stays * 0.06),
        ),
        "oracle": OracleFigures(pages_checked=497_664, violations=0),
        "workload": {"iterations": 2, "hogged_bytes": _FULL, "fill_s": 4.2},
        "phases": [_phase(phase, rows) for phase in _PHASES],
    }
    return Summary(**(figures | changes))


def _phase(phase: tuple[str, float, float], rows: Sequence[SeriesRow]) -> Phase:
    name, start_s, end_s = phase
    first, last = (
        rows[min(len(rows) - 1, int(start_s * 10))],
        rows[min(len(rows) - 1, int(end_s * 10))],
    )
    return Phase(
        name=name,
        start_s=start_s,
        end_s=end_s,
        resident_bytes_start=first.resident_bytes,
        resident_bytes_end=last.resident_bytes,
        operations=(last.operations or 0) - (first.operations or 0),
    )


def unmeasured_summary() -> Summary:
    """A summary in which nothing was measured."""
    return Summary(scenario="memhog", mechanism="off", launcher="virtual", seed=7)


def sample_folder(
    path: Path,
    *,
    scenario: Scenario | None = None,
    summary: Summary | None = None,
    series: Sequence[SeriesRow] | None = None,
) -> RunFolder:
    """A complete run folder at `path`, which must not hold one yet."""
    path.mkdir(parents=True, exist_ok=True)
    rows = sample_series() if series is None else series
    folder = RunFolder(path)
    folder.write_scenario(scenario or sample_scenario())
    folder.write_summary(summary or sample_summary(rows))
    folder.write_series(rows)
    manifest = {
        "schema": 1,
        "started_utc": "2024-05-03T09:12:44+00:00",
        "seed": 1,
        "argv": ["python", "-m", "emulator", "scenario", "memhog"],
        "versions": {"python": "3.11.7", "numpy": "2.4.0", "numba": "0.68.0"},
        "machine": {"kernel": "6.6.30", "architecture": "x86_64", "cpus": 8, "memory_bytes": 2**34},
    }
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2))
    (path / "log.jsonl").write_text('{"wall_s": 0.0, "kind": "phase", "text": "fill"}\n')
    return folder
