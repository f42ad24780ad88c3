"""The series: names, targets, selection, and the figures made from values."""

import importlib
import inspect

import msgspec
import pytest

from emulator.bench.figures import BenchResult, Conditions, Figure, figure
from emulator.bench.series import SERIES, Compared, Measurement, Series, select
from emulator.commands.measure import bench_lines
from emulator.errors import ConfigError

CONTRACT = (
    *("alloc.order0_pair_ns", "alloc.order9_pair_ns"),
    *("alloc.churn50_ns", "alloc.churn70_ns", "alloc.churn90_ns", "alloc.remote_free_ns"),
    *("guest.init_80gib_ms", "guest.metadata_bytes_per_page"),
    *("reclaim.ratio_to_raw", "hinting.page_fault1_ratio"),
    *("replay.events_per_s", "replay.parse_lines_per_s"),
    *("vhost_user.report_overhead_us", "vhost_user.idle_cpu_percent"),
    *("kvm.flushes_per_discard", "kvm.exits_per_discard", "kvm.ipis_per_discard"),
    *("kvm.interrupted_us_per_discard", "kvm.discard_us", "kvm.discard_stopped_us"),
    *("kvm.fault_us", "kvm.exit_us"),
    *("start.warm_s", "start.cold_s"),
    *("memory.memhog_80gib_s", "memory.memhog_80gib_peak_bytes"),
)
LEAST = Series(
    name="a.rate_per_s",
    unit="events/s",
    measure="a:b",
    how="so",
    at_least=1e6,
    compared_to=Compared("Others", 214e3, "somewhere"),
)
NONE = Series(name="a.count", unit="flushes", measure="a:b", how="so")
MOST = Series(name="a.size_bytes", unit="bytes", measure="a:b", how="so", at_most=1 << 30)


def test_names_are_a_contract_and_each_of_a_part_of_ours_has_one_target() -> None:
    assert tuple(one.name for one in SERIES) == CONTRACT
    for one in SERIES:
        targets = (one.at_most is not None) + (one.at_least is not None)
        assert targets == (0 if one.name.startswith("kvm.") else 1)


@pytest.mark.parametrize("measure", sorted({one.measure for one in SERIES}))
def test_each_is_measured_by_a_function_that_exists(measure: str) -> None:
    module, _, name = measure.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert list(inspect.signature(function).parameters)[:2] == ["names", "observer"]


def test_names_are_chosen_by_how_they_begin() -> None:
    assert [one.name for one in select([])] == list(CONTRACT)
    assert [one.name for one in select(["start.cold", "alloc.churn5", "start"])] == [
        "alloc.churn50_ns",
        "start.warm_s",
        "start.cold_s",
    ]


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'start\.wram_s'; did you mean 'start\.warm_s'\?.*cold"):
        select(["start", "start.wram_s"])


def test_a_figure_is_the_median_beside_its_range() -> None:
    found = figure(LEAST, Measurement((3e6, 0.5e6, 1e6), "a note"))
    assert (found.median, found.min, found.max, found.n) == (1e6, 0.5e6, 3e6, 3)
    assert found.met is True
    assert figure(LEAST, Measurement((1e6 - 1,))).met is False
    assert figure(MOST, Measurement((1 << 30,))).met is True
    assert figure(MOST, Measurement(((1 << 30) + 1,))).met is False
    assert msgspec.to_builtins(found)["target"] == {"at_least": 1e6}


def test_a_figure_without_a_target_neither_meets_nor_misses_it() -> None:
    found = figure(NONE, Measurement((2.0, 2.25)))
    assert (found.median, found.met) == (2.125, None)
    assert msgspec.to_builtins(found)["target"] == {}


def test_what_was_not_measured_is_none() -> None:
    found = figure(MOST, Measurement((), "needs two CPUs"))
    assert (found.median, found.min, found.max, found.n, found.met) == (None, None, None, 0, None)


def result_of(series: dict[str, Figure]) -> BenchResult:
    conditions = Conditions(
        load_average=[0.5, 1.0, 1.25], cache_line_round_trip_ns=110.2, distance="near"
    )
    return BenchResult(
        machine={"cpu_model": "A CPU", "cpus": 2, "kernel": "6.1"},
        versions={},
        before=conditions,
        after=msgspec.structs.replace(conditions, cache_line_round_trip_ns=None, distance=None),
        series=series,
        failures=[],
    )


def test_the_table_shows_every_series_in_a_line() -> None:
    lines = bench_lines(
        result_of(
            {
                "a.rate_per_s": figure(LEAST, Measurement((2.5e6, 1.5e6), "slowly")),
                "a.size_bytes": figure(MOST, Measurement(((1 << 30) * 1.0001,))),
                "a.other_bytes": figure(MOST, Measurement((), "no room")),
                "a.count": figure(NONE, Measurement((2.0,))),
            }
        )
    )
    assert lines == [
        "A CPU, 2 CPUs, Linux 6.1",
        "before: load 0.50 1.00 1.25; cache-line round trip between CPUs 110 ns (near)",
        "after:  load 0.50 1.00 1.25; one CPU only",
        "",
        "series           median  min .. max    n  target  met  compared to",
        "a.rate_per_s         2M  1.5M .. 2.5M  2  >= 1M   yes  214k Others",
        "a.size_bytes   1.0001Gi                1  <= 1Gi  no",
        "a.other_bytes         -                0  <= 1Gi  -",
        "a.count               2                1",
        "",
        "a.rate_per_s: slowly",
        "a.other_bytes: no room",
    ]


def test_the_table_of_all_series_fits_a_terminal() -> None:
    wide = {one.name: figure(one, Measurement((1234.5678, 9999.9))) for one in SERIES}
    assert max(map(len, bench_lines(result_of(wide)))) <= 100
