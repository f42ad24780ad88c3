"""Several guests in a report: one picture, one table, and nothing where there is one only."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console

from emulator.report.guests import guest_rows
from emulator.report.html import Run, render_page
from emulator.report.text import render_summary
from emulator.run_folder import SERIES_GUESTS, RunFolder
from emulator.runner import run
from tests.support.runs import Watcher, small
from tests.support.sample_run import sample_summary


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
