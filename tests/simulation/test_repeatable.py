"""One seed, one run: the same summary to the byte, wall-clock figures apart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from emulator.config.scenario import ROOT, Scenario
from emulator.series import write_series
from emulator.summary import to_json
from tests.support.runs import SMALL, simulate, small


def figures(scenario: Scenario) -> tuple[str, str]:
    """Summary and series of a run, as they are written."""
    run = simulate(scenario)
    return to_json(msgspec.structs.replace(run.summary, wall_s=None)), write_series(run.rows)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_run(name: str) -> None:
    scenario = small(name, "guest.vcpus=4")
    assert figures(scenario) == figures(scenario)


def test_another_seed_gives_another_run() -> None:
    assert figures(small("churn", "run.seed=1")) != figures(small("churn", "run.seed=2"))


def run_program(hash_seed: str, output: Path) -> tuple[dict[str, object], bytes]:
    """Summary and series of a run in a process of its own."""
    arguments = ["scenario", "churn", "--launcher", "virtual", "--json", "--output", str(output)]
    settings = [word for setting in SMALL["churn"] for word in ("--set", setting)]
    result = subprocess.run(
        [sys.executable, "-m", "emulator", *arguments, *settings],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
    )
    summary = json.loads(result.stdout)
    assert summary.pop("wall_s") > 0
    return summary, (output / "series.csv").read_bytes()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_in_another_process(tmp_path: Path) -> None:
    first = run_program("1", tmp_path / "first")
    assert first == run_program("2", tmp_path / "second")
    assert first[0]["oracle"] == simulate_churn_oracle()


def simulate_churn_oracle() -> object:
    """The oracle's figures of the same run in this process."""
    summary = simulate(small("churn")).summary
    return json.loads(to_json(summary))["oracle"]
