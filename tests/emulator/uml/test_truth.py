"""When two guests did the same, and how it is shown."""

import pytest

from emulator.commands.guest import truth_lines
from emulator.config.scenario import load_scenario
from emulator.summary import OracleFigures, SeriesRow, Summary
from emulator.uml.truth import Pair, Seen, Truth, reports_between

MIB = 1 << 20
REAL = Seen(times_s=[2.0, 2.1, 4.1], reported_bytes=[128 * MIB, 128 * MIB, 44 * MIB])


def pair(times_s: list[float], sizes_mib: list[int]) -> Pair:
    seen = Seen(times_s=times_s, reported_bytes=[size * MIB for size in sizes_mib])
    return Pair(real=REAL, emulated=seen)


@pytest.mark.parametrize(
    ("times_s", "sizes_mib", "holds"),
    [
        ([2.0, 2.1, 4.1], [128, 128, 44], True),
        ([2.25, 2.3, 4.2], [128, 128, 58], True),
        ([2.31, 2.31, 4.1], [128, 128, 44], False),  # 310 ms late
        ([2.0, 2.1, 4.1], [128, 128, 60], False),  # 5.3 % more
        ([2.0, 2.1], [150, 150], False),  # A report less.
        ([], [], False),
    ],
)
def test_both_did_the_same_within_the_limits(
    times_s: list[float], sizes_mib: list[int], holds: bool
) -> None:
    assert pair(times_s, sizes_mib).holds is holds


def truth(pairs: list[Pair], violations: int = 0) -> Truth:
    summary = Summary(
        scenario="uml_memhog",
        mechanism="page_reporting",
        launcher="uml",
        seed=1,
        oracle=OracleFigures(pages_checked=1, violations=violations),
    )
    scenario = load_scenario("uml_memhog")
    return Truth(pairs=pairs, real=summary, emulated=summary, scenario=scenario)


def test_it_is_shown_line_by_line() -> None:
    lines = truth_lines(truth([pair([2.0, 2.1, 4.2], [128, 128, 47])]))
    assert lines[1].split() == ["1", "Linux", "3", "300", "MiB", "2.00", "2.10", "4.10"]
    assert lines[2].split() == ["1", "emulated", "3", "303", "MiB", "2.00", "2.10", "4.20"]
    assert lines[3].startswith("The same: as many reports after each free, bytes within 1.0 %")
    assert "times within 100 ms" in lines[3]


def test_a_difference_is_said() -> None:
    found = truth([pair([2.0, 2.1], [128, 128])])
    assert not found.holds
    assert truth_lines(found)[-1].startswith("NOT the same: NOT as many reports")
    assert not truth([pair([2.0, 2.1, 4.1], [128, 128, 44])], violations=1).holds


def test_reports_are_found_between_samples() -> None:
    rows = [
        SeriesRow(time_s=at_s, reports=reports, guest_reported_bytes=reported)
        for at_s, reports, reported in [
            (0.9, 2, 200),
            (1.0, 2, 200),
            (1.5, 2, 100),  # Allocated again: not a report.
            (3.0, 3, 200),
            (3.1, 5, 400),
            (9.0, 6, 500),
        ]
    ]
    seen = reports_between(rows, 1.0, 5.0)
    assert seen.times_s == [2.0, 2.1, 2.1]
    assert seen.reported_bytes == [100, 100, 100]
