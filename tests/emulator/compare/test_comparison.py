"""The document of a comparison: what follows from the runs, and what does not."""

import json
from pathlib import Path

import msgspec
import pytest

from emulator.compare.comparison import Comparison, MadeRun, compare, to_json
from emulator.compare.design import plan
from emulator.compare.figures import CACHE_FIGURES, FIGURES, ComparedFigure, figures_of
from emulator.compare.measured import difference_of
from emulator.compare.statistics import each_of, t_quantile
from emulator.config.scenario import load_scenario
from emulator.report.comparison_words import figure_label
from emulator.summary import Summary, check_metric, lookup
from tests.support.sample_comparison import (
    CANDIDATES,
    FOOTPRINTS,
    REPEATS,
    sample_comparison,
    sample_summary_of,
)
from tests.support.sample_run import sample_scenario


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return sample_comparison(tmp_path)


def test_every_figure_is_one_of_the_summary() -> None:
    empty = Summary(scenario="s", mechanism="off", launcher="virtual", seed=1)
    for figure in FIGURES:
        check_metric(figure.metric)
        assert lookup(empty, figure.metric) is None


def test_of_a_guest_with_files_it_is_compared_where_its_memory_was() -> None:
    without, files = (figures_of(load_scenario(name)) for name in ("memhog", "page_cache"))
    assert without == FIGURES
    assert files == FIGURES + CACHE_FIGURES
    kernbench = figures_of(load_scenario("kernbench_wave"))
    assert kernbench[-1] == ComparedFigure(metric="workload.build_s", better="less")
    for figure in CACHE_FIGURES:
        check_metric(figure.metric)
        assert "mean" in figure_label(figure.metric) or "waited" in figure_label(figure.metric)


def test_all_that_a_comparison_is_about_is_compared() -> None:
    assert {figure.metric for figure in FIGURES} >= {
        "host.footprint_gib_min",
        "hinting.reclaim_latency_ms.p50",
        "hinting.reclaim_latency_ms.p99",
        "cost.cpu_s_per_gib_returned",
        "hinting.regret",
        "cost.zone_lock_hold_us.p99",
        "vcpus.operations_per_s",
        "vcpus.failed_allocations",
        "stranded.below_order_bytes",
        "stranded.percpu_bytes",
        "stranded.page_cache_bytes",
        "stranded.in_flight_bytes",
    }


def test_differences_are_paired_by_repeat(comparison: Comparison) -> None:
    found = comparison.figure("host.footprint_gib_min").mechanisms[1]
    assert found.values == list(FOOTPRINTS[1])
    assert found.difference is not None
    # Pair by pair: -0.48, -0.5, -0.49, -0.51: mean -0.495, variance 0.0005 / 3.
    assert found.difference.mean == pytest.approx(-0.495)
    quantile = t_quantile(comparison.confidence_each, REPEATS - 1)
    half = quantile * (0.0005 / 3 / REPEATS) ** 0.5
    assert found.difference.half_width == pytest.approx(half)
    assert found.difference.low == pytest.approx(-0.495 - half)
    assert found.difference.fraction == pytest.approx(-0.495)  # The baseline's mean is 1.
    assert (found.difference.verdict, found.difference.is_better) == ("less", True)


def test_a_difference_in_operations_is_better_upwards(comparison: Comparison) -> None:
    same, slower = comparison.figure("vcpus.operations_per_s").mechanisms[1:3]
    assert same.difference is not None and slower.difference is not None
    assert same.difference.verdict == "no difference detected"
    assert same.difference.is_better is None
    assert (slower.difference.verdict, slower.difference.is_better) == ("less", False)


def test_the_baseline_has_no_difference_to_itself(comparison: Comparison) -> None:
    assert all(figure.mechanisms[0].difference is None for figure in comparison.figures)
    assert comparison.baseline.label == "off"


def test_what_was_not_measured_stays_so(comparison: Comparison) -> None:
    off, reporting = comparison.figure("cost.cpu_s_per_gib_returned").mechanisms[:2]
    assert off.values == [None] * REPEATS and off.mean is None
    assert reporting.mean is not None and reporting.difference is None


def test_a_failed_run_ends_its_mechanism_and_no_other(comparison: Comparison) -> None:
    failed = comparison.mechanisms[3]
    assert failed.failure == "the host was killed"
    footprint = comparison.figure("host.footprint_gib_min").mechanisms[3]
    assert footprint.values == [0.7, None, None, None]
    assert footprint.difference is not None
    assert (footprint.difference.pairs, footprint.difference.verdict) == (1, "too few pairs")
    assert all(mechanism.failure is None for mechanism in comparison.mechanisms[:3])
    assert not comparison.is_sound
    assert not comparison.is_balanced  # Four repeats of four would be.


def test_all_intervals_of_a_mechanism_together_have_the_confidence(
    comparison: Comparison,
) -> None:
    counts = [
        sum(
            found.difference is not None and found.difference.half_width is not None
            for figure in comparison.figures
            for found in figure.mechanisms[number : number + 1]
        )
        for number in range(4)
    ]
    assert counts == [0, 9, 9, 0]
    assert comparison.intervals == 9
    assert comparison.confidence_each == each_of(0.95, 9)


def test_violations_are_counted_and_not_averaged(comparison: Comparison) -> None:
    assert comparison.mechanisms[0].violations == [0, 0, 0, 0]
    assert comparison.mechanisms[3].violations == [7, None, None, None]


def test_one_run_of_each_claims_nothing(tmp_path: Path) -> None:
    comparison = sample_comparison(tmp_path, repeats=1)
    verdicts = {
        found.difference.verdict
        for figure in comparison.figures
        for found in figure.mechanisms
        if found.difference is not None
    }
    assert verdicts == {"too few pairs"}
    assert comparison.intervals == 0


def test_the_document_holds_every_single_value(comparison: Comparison, tmp_path: Path) -> None:
    text = to_json(comparison)
    document = json.loads(text)
    assert document["schema"] == 1
    assert document["seeds"] == [1, 2, 3, 4]
    assert [run["position"] for run in document["runs"]][:4] == [1, 2, 3, 4]
    runs = [run for run in document["runs"] if run["failure"] is None]
    assert all(run["summary"]["host"]["footprint_gib_min"] for run in runs)
    assert all((tmp_path / run["folder"] / "summary.json").is_file() for run in runs)
    assert msgspec.json.decode(text, type=Comparison) == comparison


def test_a_balloons_figures_are_compared_and_not_judged() -> None:
    scenario = load_scenario("balloon_and_reporting")
    figures = {figure.metric: figure for figure in figures_of(scenario)}
    metric = "balloon.inflated_returned_bytes"
    assert metric not in {figure.metric for figure in figures_of(load_scenario("memhog"))}
    check_metric(metric)
    found = difference_of(figures[metric], [(100.0, 3.0)] * 3, 0.95)
    assert found is not None and (found.verdict, found.is_better) == ("less", None)


def test_what_a_mechanism_counts_itself_is_kept_by_repeat(tmp_path: Path) -> None:
    made = []
    for run in plan(2, 2, 1):
        summary = sample_summary_of(run.treatment, run.repeat)
        if run.treatment == 1:
            own = {"ignored_frees": 10 + run.repeat, "state": "idle", "stranded_bytes": None}
            hinting = msgspec.structs.replace(summary.hinting, mechanism=own)
            summary = msgspec.structs.replace(summary, hinting=hinting)
        made.append(MadeRun(planned=run, folder=tmp_path / "run", summary=summary))
    found = compare(
        sample_scenario(), CANDIDATES[:2], made, folder=tmp_path, repeats_planned=2, manifest={}
    )
    assert [one.own for one in found.mechanisms] == [{}, {"ignored_frees": [10.0, 11.0]}]
