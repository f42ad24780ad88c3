"""A comparison made up by hand: off, page reporting twice and one that failed, four repeats.

It is test data for whatever computes or shows comparisons; no emulator ran for it.
"""

from pathlib import Path

import msgspec

from emulator.compare.candidate import Candidate
from emulator.compare.comparison import Comparison, MadeRun, compare
from emulator.compare.design import plan
from emulator.compare.run import folder_name, scenario_of
from emulator.config.scenario import MechanismConfig
from emulator.summary import CostFigures, HintingFigures, OracleFigures, ReclaimLatency, Summary
from tests.support.sample_run import sample_folder, sample_scenario, sample_series, sample_summary

REPEATS = 4
CANDIDATES = (
    Candidate(label="off", mechanism=MechanismConfig(name="off")),
    Candidate(
        label="page_reporting",
        mechanism=MechanismConfig(name="page_reporting", parameters={"order": 9}),
    ),
    Candidate(
        label="page_reporting(order=0,delay=100ms)",
        mechanism=MechanismConfig(name="page_reporting", parameters={"order": 0, "delay": "100ms"}),
    ),
    Candidate(label="bitmap", mechanism=MechanismConfig(name="bitmap")),
)
#: GiB minutes of each repeat; operations per second; the last mechanism fails in repeat 2.
FOOTPRINTS = ((1.0, 1.1, 0.9, 1.0), (0.52, 0.6, 0.41, 0.49), (0.3, 0.41, 0.19, 0.32), (0.7,))
OPERATIONS = (
    (1000.0, 1010.0, 990.0, 1000.0),
    (1003.0, 1005.0, 992.0, 1001.0),
    (800.0, 812.0, 788.0, 803.0),
    (900.0,),
)


def sample_comparison(folder: Path, repeats: int = REPEATS) -> Comparison:
    """The comparison, with its run folders beneath `folder`."""
    scenario = sample_scenario()
    made = []
    for run in plan(len(CANDIDATES), repeats, scenario.run.seed):
        candidate = CANDIDATES[run.treatment]
        path = folder / folder_name(run, candidate.label)
        if run.treatment == 3 and run.repeat >= 1:
            if run.repeat == 1:
                made.append(MadeRun(planned=run, folder=path, failure="the host was killed"))
            continue
        series = sample_series(stays_bytes=(92 << 20) * (run.treatment == 1) + (run.seed << 20))
        summary = sample_summary_of(run.treatment, run.repeat)
        sample_folder(
            path, scenario=scenario_of(scenario, candidate, run), summary=summary, series=series
        )
        made.append(MadeRun(planned=run, folder=path, summary=summary))
    manifest = {
        "argv": ["emulator", "compare", "memhog", "--mechanism", "page_reporting(order=0)"],
        "machine": {"cpus": 8, "cpu_model": "A Processor", "kernel": "6.6.30"},
        "versions": {"free-page-lab": "0.1.0"},
    }
    return compare(
        scenario, CANDIDATES, made, folder=folder, repeats_planned=repeats, manifest=manifest
    )


def sample_summary_of(treatment: int, repeat: int) -> Summary:
    """One run: under `off` nothing comes back; `bitmap` discards pages in use."""
    summary = sample_summary()
    changes = {
        "host": msgspec.structs.replace(
            summary.host, footprint_gib_min=FOOTPRINTS[treatment][repeat]
        ),
        "vcpus": msgspec.structs.replace(
            summary.vcpus, operations_per_s=OPERATIONS[treatment][repeat]
        ),
        "oracle": OracleFigures(pages_checked=1000, violations=7 if treatment == 3 else 0),
    }
    if treatment == 0:
        changes["hinting"] = HintingFigures(reclaim_latency_ms=ReclaimLatency())
        changes["cost"] = CostFigures(zone_lock_hold_us=summary.cost.zone_lock_hold_us)
    return msgspec.structs.replace(summary, **changes)
