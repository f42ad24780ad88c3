"""A real Linux on the host's half: what it gives back, and that it still works.  Real time."""

import csv
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from devices.balloon.features import FEATURES, feature_bits
from devices.memory.jit import CACHE_FOLDER
from devices.vhost_user.socket_file import SocketFile
from emulator.config.scenario import load_scenario
from emulator.observer import NullObserver
from emulator.runner import run
from emulator.serve.pace import Pace
from emulator.serve.record import Record, Report
from emulator.serve.service_task import Service
from emulator.summary import SeriesRow, Summary, check
from emulator.uml.guest_process import run_guest
from emulator.uml.packages import Packages
from emulator.uml.truth import check_truth
from tests.processes.test_keeper import assert_gone
from tests.support.uml import needs_uml

pytestmark = [pytest.mark.slow, needs_uml]

# So small that one pass reports all that is free: 2 s after the start, and 2 s after the free.
SHORT = [
    "guest.memory=256MiB",
    "workload.iterations=1",
    "workload.idle=2.5s",
    "workload.delay=2.5s",
]


class Rows(NullObserver):
    def __init__(self) -> None:
        self.rows: list[SeriesRow] = []

    def sample(self, row: SeriesRow) -> None:
        self.rows.append(row)


def short_run(output: Path, *settings: str) -> tuple[Summary, list[SeriesRow]]:
    scenario = load_scenario("uml_memhog", [*SHORT, *settings])
    rows = Rows()
    summary = run(scenario, output=output, observer=rows)
    results = check(scenario.expect, summary)
    assert [result for result in results if not result.passed] == []
    return summary, rows.rows


def test_what_it_frees_comes_back_and_it_still_works(tmp_path: Path) -> None:
    summary, rows = short_run(tmp_path)
    figures = summary.workload
    assert summary.oracle.violations == 0
    assert figures["returned_percent_min"] >= 95
    assert figures["returned_after_free_bytes"] > 0.8 * figures["filled_bytes"]
    # The target was followed in both directions, and the guest spoke of itself.
    assert figures["inflated_bytes"] == figures["deflated_bytes"] == 64 << 20
    assert figures["balloon_bytes_end"] == 0
    assert figures["guest_total_bytes"] > 200 << 20
    assert any(row.guest_free_bytes for row in rows)
    peak, end = summary.host.resident_bytes_peak, summary.host.resident_bytes_end
    assert peak is not None and end is not None and peak > 3 * end
    with (tmp_path / "reports.csv").open(newline="") as file:
        reported = list(csv.DictReader(file))
    assert len({row["report"] for row in reported}) == summary.hinting.reports
    assert sum(int(row["len"]) for row in reported) == summary.hinting.claimed_bytes
    assert {int(row["len"]) for row in reported} == {4 << 20}
    assert [float(row["time_s"]) for row in reported] == sorted(
        float(row["time_s"]) for row in reported
    )


def test_a_guest_that_runs_out_takes_pages_back(tmp_path: Path) -> None:
    summary, _ = short_run(tmp_path, "workload.oom=true", "workload.balloon=0MiB")
    assert summary.workload["oom_taken_back_bytes"] > 1 << 20
    assert summary.oracle.violations == 0
    assert summary.workload["balloon_bytes_end"] == 0
    assert summary.workload["deflated_bytes"] == summary.workload["inflated_bytes"]


async def first_report(features: tuple[str, ...], folder: Path) -> int:
    """How many blocks the first report of a guest with these features has."""
    record = Record(features=feature_bits(features), stats_pace=Pace(1.0))
    reports: list[Report] = []
    record.observe_report = reports.append
    service = Service(record, NullObserver(), pace=Pace(0.1))
    with SocketFile(folder / "balloon") as socket_file, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run, socket_file)
            started = run_guest(Packages.find(), memory_bytes=256 << 20, socket=socket_file.path)
            async with started as guest:
                await guest.wait_mark("start")
                while not reports:
                    await trio.sleep(0.05)
                await guest.power_off()
    return reports[0].blocks


@pytest.mark.parametrize("features", [("page_reporting",), tuple(FEATURES)], ids=["few", "all"])
def test_the_reporting_queue_is_found_by_what_was_accepted(
    tmp_path: Path, features: tuple[str, ...]
) -> None:
    folder = tmp_path / "socket"  # The guest's keeper takes it away.
    folder.mkdir()
    assert trio.run(first_report, features, folder) == 32


def children(pid: int) -> list[int]:
    """A process and all below it."""
    parents = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It has just ended.
            number, rest = path.read_text().split(" ", 1)
            parents.append((int(number), int(rest.rpartition(")")[2].split()[1])))
    below = {pid}
    while more := {child for child, parent in parents if parent in below} - below:
        below |= more
    return sorted(below)


@pytest.mark.parametrize("phase", ["booting Linux", "fill 1"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(
    tmp_path: Path, ending: signal.Signals, phase: str
) -> None:
    command = [sys.executable, "-m", "emulator", "guest", "uml", "--output", str(tmp_path / "run")]
    settings = [*SHORT, "workload.delay=0s"]
    command += [word for setting in settings for word in ("--set", setting)]
    kernels = {"EMULATOR_CACHE_DIR": str(CACHE_FOLDER.parent)}  # As without another HOME.
    environment = {**os.environ, **kernels, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process, process.stderr:
        assert any(phase in line for line in process.stderr)
        below = children(process.pid)
        process.send_signal(ending)
        process.wait(timeout=20)
    assert_gone(below)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # No folder, no ~/.uml.


def test_the_emulated_guest_reports_as_a_real_one(tmp_path: Path) -> None:
    settings = ["workload.iterations=1", "workload.balloon=0MiB"]
    scenario = load_scenario("uml_memhog", settings)
    truth = check_truth(scenario, output=tmp_path, observer=NullObserver())
    assert [len(pair.emulated.times_s) for pair in truth.pairs] == [4]
    assert truth.holds, truth.pairs
