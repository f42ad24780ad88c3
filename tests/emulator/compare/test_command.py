"""`compare` as a user meets it, without a run: whole comparisons are tests/processes/'s."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from emulator.commands.application import cli
from emulator.compare.comparison import to_json
from emulator.report.comparison_curves import residency_bands
from emulator.report.comparison_html import render_comparison_page
from emulator.report.comparison_text import mail_text
from tests.support.sample_comparison import sample_comparison

BOTH = ("--mechanism", "off", "--mechanism", "page_reporting")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["compare", *arguments], prog_name="emulator")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'SCENARIO'"),
        (["memhog"], "0 given; a comparison needs two or more"),
        (["order_delay", "--set", "compare.mechanisms=['of','off']"], "no mechanism 'of'; did you"),
        (["memhog", "--mechanism", "off"], "1 given; a comparison needs two or more"),
        (["memhog", "--mechanism", "off", "--mechanism", "off"], "off: named twice"),
        (["memhgo", *BOTH], "memhgo: no such scenario; did you mean 'memhog'?"),
        (["memhog", *BOTH, "--mechanism", "ballon"], "--mechanism: no mechanism 'ballon'; "),
        (["memhog", *BOTH, "--mechanism", "no.py:Mine"], "no.py: cannot be read"),
        (
            ["memhog", *BOTH, "--mechanism", "page_reporting(oder=0)"],
            "--mechanism page_reporting.oder: unknown key; did you mean 'order'?",
        ),
        (
            ["memhog", *BOTH, "--mechanism", "page_reporting(order=99)"],
            "--mechanism page_reporting: order 99 is not one of",
        ),
        (
            ["memhog", *BOTH, "--mechanism", "page_reporting(delay=soon)"],
            "--mechanism page_reporting.delay: 'soon' is not a time",
        ),
        (["memhog", *BOTH, "--mechanism", "off(order=0)"], "--mechanism off.order: unknown key"),
        (["memhog", *BOTH, "--repeat", "0"], "0 is not in the range 1<=x<=1000"),
        (["memhog", *BOTH, "--seed", str(2**63 - 1)], "--repeat 5: the last seed: "),
        (["memhog", *BOTH, "--json", "--mail"], "--json and --mail: choose one of them"),
        (["memhog", *BOTH, "--set", "workload.fraction=2"], "fraction: 2"),
        (["memhog", *BOTH, "--memory", "1048576G"], "of real pages do not fit"),
        (["memhog", *BOTH, "--output", "full"], "full: is not empty (here.txt)"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_no_folder(
    arguments: list[str], message: str
) -> None:
    Path("full").mkdir()
    Path("full/here.txt").touch()
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    *usage, last = result.stderr.splitlines()
    assert last.startswith("Error: ") and message in last
    assert all(line.startswith(("Usage: ", "Try ")) or not line for line in usage)
    assert not Path("runs").exists()


def test_report_shows_a_comparison_again_from_its_folder(tmp_path: Path) -> None:
    comparison = sample_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text(to_json(comparison))
    result = CliRunner().invoke(cli, ["report", str(tmp_path)])
    assert result.exit_code == 1  # Not sound: one mechanism's run failed.
    assert "page_reporting against off" in result.output
    assert (tmp_path / "mail.txt").read_text() == mail_text(comparison)
    page = (tmp_path / "report.html").read_text()
    assert page == render_comparison_page(comparison, residency_bands(comparison, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"schema": 2}, "has schema 2; this version reads schema 1"),
        (lambda d: {"schema": 1}, "damaged: Object missing required field scenario"),
        (lambda d: d | {"mechanisms": d["mechanisms"][:1]}, "damaged: every figure must be of"),
        (lambda d: d | {"figures": d["figures"][1:]}, "has no host.footprint_gib_min: damaged, or"),
    ],
)
def test_a_damaged_comparison_is_one_line(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    document = json.loads(to_json(sample_comparison(tmp_path)))
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(change(document)))
    result = CliRunner().invoke(cli, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert f"{path}: {message}" in result.output
    assert "Traceback" not in result.output


def test_a_comparison_and_a_run_folder_are_reported_apart(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(to_json(sample_comparison(tmp_path)))
    for arguments, message in (
        ([str(tmp_path), str(tmp_path / "run")], "is a comparison; report it and run folders"),
        ([str(tmp_path), "--html", "x.html"], "the page of a comparison lies in its folder"),
    ):
        result = CliRunner().invoke(cli, ["report", *arguments])
        assert (result.exit_code, message in result.output) == (2, True)
