"""`compare` as a user meets it, without a run: whole comparisons are tests/processes/'s."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from emulator.commands.application import cli

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
        (["memhog"], "Missing option '--mechanism'"),
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
