"""Several guests in a report: one picture, one table, and nothing where there is one only."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console

from emulator.report.guests import guest_rows
from emulator.report.guests_pictures import each_guest, stacked_guests
from emulator.report.html import Run, render_page
from emulator.report.pictures import Canvas
from emulator.report.text import render_summary
from emulator.run_folder import SERIES_GUESTS, RunFolder
from emulator.runner import run
from emulator.summary import SeriesRow
from tests.support.runs import Watcher, small
from tests.support.sample_run import sample_summary

MIB = 1 << 20


def run_folder(path: Path, *settings: str) -> RunFolder:
    """A run of hogs, written."""
    scenario = small("memhog", *settings)
    folder = RunFolder.create(path, scenario.name, datetime.now(UTC))
    folder.write_scenario(scenario)
    watcher = Watcher()
    folder.write_summary(run(scenario, output=folder.path, observer=watcher))
    folder.write_series(watcher.rows)
    return folder


def test_one_guest_has_neither(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    assert not (tmp_path / SERIES_GUESTS).exists()
    assert folder.read_guests_series() == []
    assert guest_rows(sample_summary()) == []
    page = render_page([Run.read(folder)], tmp_path)
    assert "Guests" not in page and SERIES_GUESTS not in page


def test_three_guests_are_shown_beside_each_other(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "guests={count=3,apart='2s'}")
    read = Run.read(folder)
    assert [len(rows) for rows in read.guests] == [len(read.series)] * 3
    for index, row in enumerate(read.series):
        assert row.resident_bytes == sum(rows[index].resident_bytes or 0 for rows in read.guests)
    page = render_page([read], tmp_path)
    for words in (">Guests<", "guest 0", "guest 2", SERIES_GUESTS):
        assert words in page
    out = StringIO()
    render_summary(read.summary, read.scenario, [], Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("Guest  begins"))
    assert [line.split()[:3] for line in lines[at + 1 : at + 4]] == [
        ["0", "0", "s"],
        ["1", "2", "s"],
        ["2", "4", "s"],
    ]
    assert "3 guests" in out.getvalue()


def test_guests_lie_on_top_of_each_other_below_the_hosts_memory() -> None:
    guests = [[SeriesRow(time_s=float(at), resident_bytes=at * MIB) for at in range(5)]] * 3
    page = stacked_guests(guests, 64 * MIB, Canvas("stack", 1000, 400)) or ""
    assert "host's memory, 64 MiB" in page and "guest 2" in page
    assert "MiB" in page and ">60<" in page  # The axis reaches up to the host's memory.
    without = stacked_guests(guests, None, Canvas("stack", 1000, 400)) or ""
    assert "host's memory" not in without and ">60<" not in without and ">10<" in without
    many = stacked_guests(guests * 4, None, Canvas("stack", 1000, 400)) or ""
    assert "guest 2" not in many  # A legend of twelve would tell nobody apart.
    assert stacked_guests([[SeriesRow(time_s=0.0)]], None, Canvas("stack", 1000, 400)) is None


def test_each_guest_is_alone_in_a_picture_and_as_many_as_there_are_fit() -> None:
    rows = [
        SeriesRow(time_s=float(at), resident_bytes=MIB, balloon_bytes=at * MIB, swapped_bytes=0)
        for at in range(5)
    ]
    page = each_guest([rows] * 7, Canvas("each", 1000, 0)) or ""
    assert all(f"guest {number}" in page for number in range(7))
    assert "var(--balloon" in page and "var(--swapped" not in page  # Nothing was swapped.
    pages = [each_guest([rows] * n, Canvas("each", 1000, 0)) or "" for n in (4, 5, 64)]
    heights = [int(one.split('viewBox="0 0 1000 ')[1].partition('"')[0]) for one in pages]
    assert heights[1] - heights[0] == (heights[2] - heights[0]) / 15 > 0
    assert each_guest([[SeriesRow(time_s=0.0)]], Canvas("each", 1000, 0)) is None
