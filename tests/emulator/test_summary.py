import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.expectations import Expectation
from emulator.errors import ConfigError
from emulator.series import read_series, write_series
from emulator.summary import (
    ExpectationResult,
    HostFigures,
    OracleFigures,
    Phase,
    SeriesRow,
    Summary,
    check,
    check_metric,
    from_json,
    is_sound,
    lookup,
    to_json,
)
from tests.support.sample_run import sample_summary

UNMEASURED = Summary(scenario="s", mechanism="off", launcher="virtual", seed=1)

# The contract, section by section: as it is written in the design.
SCHEMA_1 = {
    "guest": ["memory_bytes", "vcpus", "ram", "page_metadata_bytes"],
    "host": [
        "resident_bytes_start",
        "resident_bytes_peak",
        "resident_bytes_end",
        "footprint_gib_min",
        "cpu_s",
    ],
    "hinting": [
        "reports",
        "blocks",
        "claimed_bytes",
        "returned_bytes",
        "refaulted_bytes",
        "regret",
        "wakeups",
        "reclaim_latency_ms",
    ],
    "balloon": [
        "target_bytes_end",
        "balloon_bytes_end",
        "inflated_bytes",
        "deflated_bytes",
        "targets",
        "targets_reached",
        "follow_s_max",
        "shortfalls",
        "oom_calls",
        "oom_bytes",
        "oom_wait_s",
        "wishes_cut",
        "guest_statistics",
    ],
    "page_cache": [
        "bytes_peak",
        "bytes_end",
        "mapped_bytes_end",
        "dirty_bytes_peak",
        "dirty_bytes_end",
        "host_cache_bytes_end",
        "duplicate_bytes_end",
        "hit_rate",
        "host_reads",
        "host_read_bytes",
        "disk_read_bytes",
        "written_bytes",
        "kswapd_bytes",
        "direct_bytes",
        "node_bytes",
        "dropped_bytes",
        "scanned_bytes",
        "kswapd_runs",
    ],
    "cost": [
        "cpu_s_per_gib_returned",
        "zone_lock_hold_us",
        "zone_lock_wait_s",
        "vcpu_fault_s",
        "vcpu_interrupted_s",
        "vcpu_displaced_s",
    ],
    "vcpus": [
        "operations",
        "operations_per_s",
        "pages_touched_per_s",
        "failed_allocations",
        "alloc_latency_ns",
    ],
    "stranded": ["below_order_bytes", "percpu_bytes", "page_cache_bytes", "in_flight_bytes"],
    "oracle": ["pages_checked", "violations"],
}


def test_the_keys_are_those_of_schema_1() -> None:
    document = json.loads(to_json(UNMEASURED))
    assert list(document) == [
        *("schema", "scenario", "mechanism", "launcher", "seed", "wall_s", "virtual_s"),
        *SCHEMA_1,
        *("capacity", "workload", "phases"),
    ]
    assert document["capacity"] == {
        "host_bytes": None,
        "recordings": None,
        "guest_mean_bytes": None,
        "guest_peak_bytes": None,
        "guests_by_mean": None,
        "guests_by_peak": None,
        "fits": [],
    }
    for section, keys in SCHEMA_1.items():  # What was added since stands behind them.
        assert list(document[section])[: len(keys)] == keys
    measured = json.loads(to_json(sample_summary()))
    assert list(measured["hinting"]["reclaim_latency_ms"]) == ["p50", "p90", "p99", "max"]
    assert list(measured["cost"]["zone_lock_hold_us"]) == ["p50", "p99", "max"]
    assert list(measured["vcpus"]["alloc_latency_ns"]) == ["p50", "p99", "p999"]
    assert list(measured["phases"][0]) == [
        *("name", "start_s", "end_s", "resident_bytes_start", "resident_bytes_end", "operations")
    ]


def test_what_was_not_measured_is_null() -> None:
    document = json.loads(to_json(UNMEASURED))
    figures = [value for section in SCHEMA_1 for value in document[section].values()]
    assert figures and all(value is None for value in figures)


@pytest.mark.parametrize("summary", [UNMEASURED, sample_summary()], ids=["empty", "full"])
def test_a_written_summary_reads_as_the_same(summary: Summary) -> None:
    assert from_json(to_json(summary)) == summary


def test_numbers_of_numpy_and_numbers_that_are_none_are_written_plainly() -> None:
    workload = {"a": np.int64(3), "b": np.float64(0.5), "c": math.nan, "d": np.float32(0.25)}
    summary = msgspec.structs.replace(UNMEASURED, workload=workload)
    assert from_json(to_json(summary)).workload == {"a": 3, "b": 0.5, "c": None, "d": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x: damaged: not JSON: "),
        ("{", "x: damaged: not JSON: "),
        ("[]", "x: damaged: Expected object, got array"),
        ("{}", "x: damaged: Object missing required field schema"),
        ('{"schema": 2}', "x: has schema 2; this version reads schema 1"),
        ('{"schema": 1}', "x: damaged: Object missing required field scenario"),
        (
            to_json(UNMEASURED).replace('"violations": null', '"violations": "none"'),
            "x: damaged: Expected int | null, got str - at $.oracle.violations",
        ),
    ],
)
def test_a_damaged_summary_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_json(text, where="x")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="damaged"):
        from_json(b'{"schema": 1, "scenario": "\xff"}')


def test_figures_are_looked_up_by_path() -> None:
    phases = [Phase(name="fill", start_s=0, end_s=1), Phase(name="rest", start_s=1, end_s=9)]
    summary = msgspec.structs.replace(
        UNMEASURED,
        host=HostFigures(resident_bytes_end=7),
        workload={"faults": 3, "pause": {"max_ms": 2}},
        phases=phases,
    )
    assert lookup(summary, "host.resident_bytes_end") == 7
    assert lookup(summary, "mechanism") == "off"
    assert lookup(summary, "workload.faults") == 3
    assert lookup(summary, "workload.pause.max_ms") == 2
    assert lookup(summary, "phases.1.end_s") == lookup(summary, "phases.rest.end_s") == 9
    assert lookup(summary, "host.cpu_s") is None
    assert lookup(summary, "hinting.reclaim_latency_ms.p99") is None


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("host.residnt_bytes_end", "did you mean 'resident_bytes_end'?"),
        ("hots.cpu_s", "did you mean 'host'?"),
        ("host", "not a figure"),
        ("phases", "not a figure"),
        ("workload", "not a figure"),
        ("hinting.reclaim_latency_ms", "not a figure"),
        ("hinting.reclaim_latency_ms.p95", "allowed: max, p50, p90, p99"),
        ("seed.x", "no such figure"),
        ("phases.0.duration", "no such figure"),
        ("", "no such figure"),
    ],
)
def test_what_no_summary_has_is_refused_before_and_after_a_run(metric: str, message: str) -> None:
    with pytest.raises(ConfigError) as before:
        check_metric(metric)
    assert message in str(before.value)
    with pytest.raises(ConfigError) as after:
        lookup(sample_summary(), metric)
    assert message in str(after.value)


def test_what_only_the_run_can_tell_is_refused_after_it() -> None:
    for metric in ("workload.nothing", "phases.no such phase.end_s"):
        check_metric(metric)
        with pytest.raises(ConfigError, match="no such figure"):
            lookup(UNMEASURED, metric)


def test_expectations_are_held_against_the_figures() -> None:
    summary = msgspec.structs.replace(UNMEASURED, host=HostFigures(resident_bytes_end=7))
    met, missed, unmeasured = check(
        [
            Expectation(metric="host.resident_bytes_end", at_most=7),
            Expectation(metric="host.resident_bytes_end", at_least=8),
            Expectation(metric="host.cpu_s", at_most=1),
        ],
        summary,
    )
    assert met == ExpectationResult(
        metric="host.resident_bytes_end", at_most=7, value=7, passed=True
    )
    assert (missed.passed, missed.value) == (False, 7)
    assert (unmeasured.passed, unmeasured.value) == (False, None)
    assert is_sound(summary, [met])
    assert not is_sound(summary, [met, missed])


def test_a_violation_makes_a_run_unsound() -> None:
    violated = msgspec.structs.replace(UNMEASURED, oracle=OracleFigures(violations=1))
    assert not is_sound(violated, [])


_SIZES = st.none() | st.integers(0, 1 << 62)
_ROWS = st.builds(
    SeriesRow,
    time_s=st.floats(0, 1e9),
    resident_bytes=_SIZES,
    guest_free_bytes=_SIZES,
    guest_reported_bytes=_SIZES,
    page_cache_bytes=_SIZES,
    balloon_bytes=_SIZES,
    operations=_SIZES,
    reports=_SIZES,
)


@given(st.lists(_ROWS))
def test_a_written_series_reads_as_the_same(rows: list[SeriesRow]) -> None:
    assert read_series(write_series(rows)) == rows


def test_the_columns_are_those_of_the_design_and_none_is_an_empty_cell() -> None:
    assert write_series([SeriesRow(time_s=0.1, resident_bytes=4096, reports=0)]) == (
        "time_s,resident_bytes,guest_free_bytes,guest_reported_bytes,page_cache_bytes,"
        "balloon_bytes,operations,reports,dirty_bytes,host_cache_bytes,swapped_bytes,"
        "balloon_target_bytes,duplicate_bytes\n"
        "0.1,4096,,,,,,0,,,,,\n"
    )


@pytest.mark.parametrize(("added", "cells"), [("", ""), (",dirty_bytes,host_cache_bytes", ",,")])
def test_a_series_from_before_there_was_a_page_cache_is_read(added: str, cells: str) -> None:
    columns = "time_s,resident_bytes,guest_free_bytes,guest_reported_bytes,page_cache_bytes,"
    text = f"{columns}balloon_bytes,operations,reports{added}\n0.1,4096,,,,,,0{cells}\n"
    assert read_series(text) == [SeriesRow(time_s=0.1, resident_bytes=4096, reports=0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "x: damaged: the first line must be time_s,resident_bytes,"),
        (lambda text: text.replace("time_s", "time_ms"), "x: damaged: the first line must be"),
        (lambda text: text + "1,2\n", "x: damaged: line 3 has 2 cells, not 13"),
        (lambda text: text.replace("4096", "4k"), "x: damaged: line 2: Expected int | null"),
        (lambda text: text.replace("0.1,", ","), "x: damaged: line 2: Object missing"),
        (lambda text: text + '"', "x: damaged: "),
    ],
)
def test_a_damaged_series_is_refused_with_its_line(change: object, message: str) -> None:
    assert callable(change)
    text = write_series([SeriesRow(time_s=0.1, resident_bytes=4096, reports=0)])
    with pytest.raises(ConfigError) as raised:
        read_series(change(text), where="x")
    assert str(raised.value).startswith(message)
