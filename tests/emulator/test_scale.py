"""scale: real runs in virtual time, small; the pairing and the table by hand."""

from collections.abc import Sequence

import msgspec
import pytest

from emulator.commands.measure import scale_csv, scale_lines
from emulator.config.published import Published
from emulator.config.scenario import Scenario, load_scenario
from emulator.errors import ConfigError
from emulator.observer import NullObserver
from emulator.scale import ScaleRow, ScaleTable, Spread, differences, run_scale, spread

SMALL = (
    'run.launcher="virtual"',
    'guest.ram="accounted"',
    'guest.memory="32MiB"',
    "guest.vcpus=1",
    'workload.warm_up="0s"',
    'workload.duration="3s"',
    'workload.size="16MiB"',
    'workload.rate="64MiB"',
)


class Titles(NullObserver):
    """The order of the runs."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def phase(self, text: str) -> None:
        self.seen.append(text.partition(":")[0])


def small(*more: str) -> Scenario:
    return load_scenario("page_fault1", [*SMALL, *more])


def table_of(*names: str, vcpus: Sequence[int] = (1,), repeats: int = 1) -> ScaleTable:
    return run_scale(small(), vcpus, names, repeats, NullObserver())


def test_each_number_of_vcpus_has_a_row_for_each_mechanism() -> None:
    table = table_of("off", "page_reporting", vcpus=(1, 2))
    assert [(row.vcpus, row.mechanism) for row in table.rows] == [
        (1, "off"),
        (1, "page_reporting"),
        (2, "off"),
        (2, "page_reporting"),
    ]
    assert table.figure == "workload.pages_per_s"
    assert table.baseline == "off"
    assert all(row.violations == row.failed_allocations == 0 for row in table.rows)


def test_in_virtual_time_the_pace_is_kept_by_every_vcpu() -> None:
    one, two = table_of("off", vcpus=(1, 2)).rows
    assert one.per_s is not None and two.per_s is not None
    # 64 MiB/s are 16384 pages/s; the time of a last cycle that runs over its end counts, too.
    assert one.per_s.median == pytest.approx(16384, rel=0.01)
    assert two.per_s.median == pytest.approx(2 * 16384, rel=0.01)
    assert two.per_s_per_vcpu == pytest.approx(16384, rel=0.01)
    assert one.difference_percent is None


def test_memory_grows_where_the_vcpus_do_not_fit_and_it_says_so() -> None:
    table = table_of("off", vcpus=(1, 4))
    assert [row.memory_bytes >> 20 for row in table.rows] == [32, 72]
    assert table.notes == [
        "4 vCPUs had a guest of 72MiB: the scenario's 32MiB are too small for them"
    ]


def test_what_does_not_fit_with_the_scenarios_own_vcpus_is_refused() -> None:
    scenario = small('workload.size="64MiB"')
    with pytest.raises(ConfigError, match="do not fit in 32MiB"):
        run_scale(scenario, [1], ["off"], 1, NullObserver())


def test_mechanisms_take_turns_and_every_second_time_in_the_opposite_order() -> None:
    watching = Titles()
    table = run_scale(small(), [1], ["off", "page_reporting"], 2, watching)
    assert watching.seen == [
        "1 vCPU, off, 1 of 2",
        "1 vCPU, page_reporting, 1 of 2",
        "1 vCPU, page_reporting, 2 of 2",
        "1 vCPU, off, 2 of 2",
    ]
    off, reporting = table.rows
    assert len(off.values) == len(reporting.values) == len(reporting.differences) == 2
    assert off.differences == []


def test_a_mechanism_is_compared_with_itself_by_its_parameters() -> None:
    table = table_of("page_reporting", "page_reporting(order=0)")
    assert [row.mechanism for row in table.rows] == ["page_reporting", "page_reporting(order=0)"]
    assert table.baseline == "page_reporting"
    assert table.rows[0].differences == [] and len(table.rows[1].differences) == 1


def test_without_off_the_first_mechanism_is_the_baseline() -> None:
    assert table_of("page_reporting").baseline is None
    workload_without_its_own = load_scenario("churn", [*SMALL[:4], 'workload.duration="100ms"'])
    table = run_scale(workload_without_its_own, [1], ["page_reporting"], 1, NullObserver())
    assert table.figure == "vcpus.operations_per_s"


def test_differences_are_paired_by_repetition() -> None:
    paired = differences([90.0, 220.0, None, 5.0], [100.0, 200.0, 100.0, None])
    assert paired == [pytest.approx(-10), pytest.approx(10), None, None]
    assert spread([-10.0, 14.0, None, 2.0]) == Spread(median=2.0, min=-10.0, max=14.0)
    assert spread([None]) is None


def test_the_table_fits_a_terminal_and_shows_what_was_not_measured() -> None:
    def row(mechanism: str, found: Spread | None, difference: Spread | None) -> ScaleRow:
        return ScaleRow(
            vcpus=16,
            mechanism=mechanism,
            memory_bytes=1 << 30,
            per_s=found,
            per_s_per_vcpu=None if found is None else found.median / 16,
            difference_percent=difference,
            failed_allocations=3,
            violations=0,
            values=[None if found is None else found.median] * 2,
            differences=[0.5, -12.25],
        )

    lines = scale_lines(
        ScaleTable(
            scenario="page_fault1",
            figure="workload.pages_per_s",
            launcher="processes",
            ram="memfd",
            repeats=2,
            baseline="off",
            rows=[
                row("off", Spread(median=12345678.9, min=1.0, max=2.0), None),
                row(
                    "/somewhere/mine.py:Mine",
                    None,
                    Spread(median=-5.875, min=-12.25, max=0.5),
                ),
            ],
            notes=["A note."],
        )
    )
    assert lines == [
        "page_fault1: workload.pages_per_s, 2 times each (processes, memfd)",
        "vcpus  mechanism     per second  per vCPU  against off             failed  violations",
        "   16  off           12,345,679   771,605                               3           0",
        "   16  mine.py:Mine           -         -  -5.9 % (-12.2 .. +0.5)       3           0",
        "A note.",
    ]


def row_of(mechanism: str, vcpus: int, per_s: float, differences: list[float | None]) -> ScaleRow:
    return ScaleRow(
        vcpus=vcpus,
        mechanism=mechanism,
        memory_bytes=1 << 30,
        per_s=Spread(median=per_s, min=per_s - 1, max=per_s + 1),
        per_s_per_vcpu=per_s / vcpus,
        difference_percent=spread(differences),
        failed_allocations=0,
        violations=0,
        values=[per_s],
        differences=differences,
    )


def test_published_figures_stand_beside_the_rows_they_are_about() -> None:
    published: list[dict[str, object]] = [
        {"vcpus": 1, "mechanism": "page_reporting", "against": "off"},
        {"vcpus": 16, "mechanism": "page_reporting", "against": "off"},
        {"mechanism": "bitmap", "against": "off"},
        {"metric": "host.footprint_gib_min"},
        {"mechanism": "page_reporting", "against": "bitmap"},
        {"mechanism": "off"},
    ]
    what: dict[str, object] = {
        "what": "what",
        "figure": "-1 %",
        "source": "who",
        "metric": "workload.pages_per_s",
    }
    scenario = msgspec.structs.replace(
        small(), published=tuple(msgspec.convert(what | one, Published) for one in published)
    )
    table = run_scale(scenario, [1], ["off", "page_reporting"], 1, NullObserver())
    assert [one.why for one in table.published] == [
        "",
        "it takes 16 vCPUs",
        "bitmap was not run",
        "this table is of workload.pages_per_s",
        "this table's differences are to off",
        "",
    ]
    assert [row.mechanism for row in table.published[0].rows] == ["page_reporting"]
    lines = "\n".join(scale_lines(table))
    assert "    page_reporting, 1 vCPU: measured +0.0 % (one pair), published -1 % (who)" in lines
    assert "    published -1 % (who); not measured here: it takes 16 vCPUs" in lines
    assert "    off, 1 vCPU: measured 16,384 /s, published -1 % (who)" in lines


def test_as_csv_it_has_a_line_a_row_and_empty_cells_for_what_is_not_measured() -> None:
    table = ScaleTable(
        scenario="page_fault1",
        figure="workload.pages_per_s",
        launcher="processes",
        ram="memfd",
        repeats=1,
        baseline="off",
        rows=[row_of("off", 2, 100.0, []), row_of("mine, too", 2, 90.0, [-10.0, None])],
        notes=[],
    )
    assert scale_csv(table).splitlines() == [
        "vcpus,mechanism,memory_bytes,per_s_median,per_s_min,per_s_max,per_s_per_vcpu,"
        "difference_percent_median,difference_percent_min,difference_percent_max,"
        "failed_allocations,violations",
        "2,off,1073741824,100.0,99.0,101.0,50.0,,,,0,0",
        '2,"mine, too",1073741824,90.0,89.0,91.0,45.0,-10.0,-10.0,-10.0,0,0',
    ]
