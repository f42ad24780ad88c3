"""Whole comparisons, each run of them in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator.config.scenario import ROOT

SMALL = (
    *("--memory", "64MiB", "--launcher", "virtual"),
    *("--set", "workload.idle=3s", "--set", "workload.iterations=1"),
)
PROGRAM = (sys.executable, "-m", "emulator", "compare", "memhog")

DEADLY = '''
"""Kills its process as soon as it is started."""
import os
import signal
from emulator.guest.hinting.mechanisms.off import Off


class Deadly(Off):
    name = "deadly"

    def start(self, mm, actor):
        os.kill(os.getpid(), signal.SIGKILL)
'''


def compare(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *arguments, "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def processes_of(folder: Path) -> list[str]:
    """The processes that a comparison into `folder` started: they run where it was started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder.parent.resolve():
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:  # Not ours, or ended meanwhile.
            continue
    return found


@pytest.mark.slow
def test_a_mechanism_is_told_from_none_and_not_from_itself(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = compare(
        *(*SMALL, "--json", "--repeat", "3"),
        *("--mechanism", "off", "--mechanism", "off()", "--mechanism", "page_reporting(order=0)"),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "comparison.json").read_text())
    assert [run["mechanism"] for run in document["runs"]] == [
        *("off", "off()", "page_reporting(order=0)"),
        *("page_reporting(order=0)", "off()", "off"),
        *("off()", "page_reporting(order=0)", "off"),
    ]
    assert [run["seed"] for run in document["runs"]] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for figure in document["figures"]:
        itself = figure["mechanisms"][1]["difference"]
        assert itself is None or itself["verdict"] == "no difference detected", figure["metric"]
    footprint = document["figures"][0]["mechanisms"][2]["difference"]
    assert (footprint["verdict"], footprint["is_better"]) == ("less", True)
    for run in document["runs"]:
        names = {path.name for path in (folder / run["folder"]).iterdir()}
        assert names >= {"scenario.toml", "summary.json", "series.csv", "manifest.json"}
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    mail = (folder / "mail.txt").read_text()
    assert max(map(len, mail.splitlines())) <= 72
    assert "phase: run 9 of 9" in done.stderr


@pytest.mark.slow
def test_a_mechanism_that_dies_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    folder = tmp_path / "out"
    done = compare(
        *(*SMALL, "--mail", "--repeat", "2", "--mechanism", "off"),
        *("--mechanism", "./deadly.py:Deadly", "--mechanism", "page_reporting"),
        folder=folder,
    )
    assert done.returncode == 1, done.stderr
    document = json.loads((folder / "comparison.json").read_text())
    assert "was killed by SIGKILL" in document["mechanisms"][1]["failure"]
    assert [run["mechanism"] for run in document["runs"]] == [
        *("off", "./deadly.py:Deadly", "page_reporting"),
        *("page_reporting", "off"),
    ]
    assert "Left out, because a run failed: the process of the run was" in done.stdout


@pytest.mark.slow
def test_parameters_of_own_mechanisms_are_checked_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(DEADLY)
    (tmp_path / "two.py").write_text(DEADLY)
    done = compare(
        *("--mechanism", "./one.py:Deadly", "--mechanism", "./two.py:Deadly(order=0)"),
        folder=tmp_path / "out",
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --mechanism ./two.py:Deadly.order: unknown key; allowed: none\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_a_baseline_there_is_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    done = compare(
        *(*SMALL, "--mechanism", "./deadly.py:Deadly", "--mechanism", "off"),
        folder=tmp_path / "out",
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: run 1 of 10, ./deadly.py:Deadly: the process of the run was")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_by_an_interrupted_comparison(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "out"
    program = subprocess.Popen(
        [
            *(*PROGRAM, "--memory", "64MiB", "--launcher", "processes"),
            *("--mechanism", "off", "--mechanism", "page_reporting", "--output", str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert program.stderr is not None
    for line in program.stderr:
        if "resident" in line:  # The first run has begun.
            break
    assert sum("emulator.compare.process" in command for command in processes_of(folder)) == 1
    program.send_signal(number)
    _, said = program.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert program.returncode == 128 + number
        assert said.splitlines()[-2] == f"What was recorded is in {folder}"
        assert (folder / "001-repeat-1-off" / "series.csv").is_file()
    deadline_s = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert processes_of(folder) == []
