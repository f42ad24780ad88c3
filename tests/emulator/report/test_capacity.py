"""How many guests fit, as text, as a page, and by the command."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from emulator.capacity import capacities as capacity
from emulator.capacity.capacities import CapacityOf, capacities_of
from emulator.commands.application import cli
from emulator.config.capacity import CapacityConfig
from emulator.report.capacity_words import capacity_lines, probability_text
from emulator.report.comparison_html import render_comparison_page
from emulator.report.comparison_text import mail_text
from emulator.report.html import Run, render_capacity_page, render_page
from tests.support.sample_comparison import sample_comparison
from tests.support.sample_run import sample_folder, sample_scenario

GIB = 1 << 30
TIMES = [float(at) for at in range(11)]
LEVELS = [3.0 * GIB] + [1.0 * GIB] * 9 + [3.0 * GIB]
CONFIG = CapacityConfig(host_bytes=30 * GIB)


@pytest.fixture(scope="module")
def capacities() -> list[CapacityOf]:
    recorded = {
        "off": [[(TIMES, [3.0 * GIB] * 11)]],
        "page_reporting(order=0,delay=100ms)": [[(TIMES, LEVELS)]] * 2,
        "<script>": [[(TIMES, [31.0 * GIB] * 11)]],
    }
    return capacities_of(recorded, CONFIG, seed=1)


def test_text_of_72_columns_has_answer_and_tail_beside_the_mean(
    capacities: list[CapacityOf],
) -> None:
    lines = [line for line, _ in capacity_lines(capacities)]
    assert max(map(len, lines)) <= 72
    words = " ".join(" ".join(lines).split())
    assert "How many such guests fit a host of 30 GiB" in words
    assert "- off: 10 with less than 1 % of the time swapping and 10 with less than 0.1 %;" in words
    assert "by one guest's peak (3 GiB) 10, by its mean (1.2 GiB) 25" in words  # 1.2 of LEVELS.
    assert "- <script>: not answered: host: 30GiB are less than the 31744MiB" in words
    row = next(line for line in lines if re.match(r"  page_reporting.* < 1 %", line))
    assert re.search(r" 19 \(18-20\) +0\.\d+ % +\d+ %$", row)
    assert re.search(r"  off +10 +30 GiB +30 GiB +30 GiB +30 GiB$", "\n".join(lines), re.MULTILINE)


def test_what_is_drawn_again_is_said() -> None:
    def words(*runs: capacity.Run) -> str:
        lines = capacity_lines(capacities_of({"off": list(runs)}, CONFIG, seed=1))
        return " ".join(" ".join(line for line, _ in lines).split())

    one: capacity.Run = [(TIMES, LEVELS)]
    assert "were as many of the same recordings drawn again" in words(one, one)
    assert "of the same runs, each with all its guests, drawn again" in words(one * 2, one)
    assert "From one recording nobody knows" in words(one)
    assert "From one run nobody knows" in words(one * 2)


def test_a_page_has_picture_and_tables(capacities: list[CapacityOf]) -> None:
    page = render_capacity_page(capacities, "How many?")
    assert page.count("<svg") == 2  # Wide and narrow.
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "of periods" in page and "p99.9" in page
    # Of mechanisms of which none could be answered there is nothing to draw.
    alone = render_capacity_page(capacities[2:], "How many?")
    assert "<svg" not in alone and "not answered" in alone


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.01, "1 %"), (0.001, "0.1 %"), (0.00083, "0.083 %"), (0.0, "0 %"), (0.314, "31 %")],
)
def test_probabilities_read_as_per_cent(probability: float, text: str) -> None:
    assert probability_text(probability) == text


def test_it_stands_in_the_report_of_a_run_that_asks(tmp_path: Path) -> None:
    asked = CapacityConfig(host_bytes=8 * GIB, probabilities=(0.1,), resamples=100)
    scenario = msgspec.structs.replace(sample_scenario(), capacity=asked)
    folder = sample_folder(tmp_path / "run", scenario=scenario)
    assert "How many such guests fit a host of 8 GiB" in render_page([Run.read(folder)], tmp_path)
    result = CliRunner().invoke(cli, ["report", str(folder.path)])
    assert "How many such guests fit a host of 8 GiB" in result.output
    assert "capacity.json" in (folder.path / "report.html").read_text()


def test_a_run_can_be_held_against_it(tmp_path: Path) -> None:
    """From the command line: in the summary, in what is expected, and null without a question."""
    small = ["--memory=64MiB", "--vcpus=1", "--launcher=virtual", "--set=guest.ram='accounted'"]
    words = ["scenario", "memhog", *small, "--set=workload.iterations=1", "--set=workload.idle=1s"]
    asks = ["--set=capacity={host='1GiB', probabilities=[0.1], resamples=100}"]
    for at_least, code in ((16, 0), (1000, 1)):
        folder = tmp_path / str(code)
        expect = [f"--set=expect=[{{metric='capacity.fits.0.guests', at_least={at_least}}}]"]
        result = CliRunner().invoke(cli, [*words, *asks, *expect, f"--output={folder}", "--json"])
        assert result.exit_code == code
        document = json.loads(result.stdout)
        assert document["capacity"]["host_bytes"] == GIB
        assert 16 <= document["capacity"]["fits"][0]["guests"] < 1000
        assert json.loads((folder / "summary.json").read_text())["capacity"] == document["capacity"]
    result = CliRunner().invoke(
        cli, [*words, "--set=expect=[{metric='capacity.fits.0.guest', at_least=1}]"]
    )
    assert (result.exit_code, "capacity.fits.0.guest: the summary" in result.output) == (2, True)


def test_it_stands_in_a_comparison_that_asks(tmp_path: Path, capacities: list[CapacityOf]) -> None:
    comparison = msgspec.structs.replace(sample_comparison(tmp_path), capacity=capacities)
    mail = mail_text(comparison)
    assert mail.isascii() and max(map(len, mail.splitlines())) <= 72
    assert "How many such guests fit" in mail
    bands = [None] * len(comparison.mechanisms)
    assert "How many such guests fit" in render_comparison_page(comparison, bands)


def test_the_command_answers_for_folders_and_tables(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "time_s,resident_bytes\n"
        + "".join(f"{t},{size:.0f}\n" for t, size in zip(TIMES, LEVELS, strict=True))
    )
    page = tmp_path / "page.html"
    words = ["capacity", str(own), "--host", "30GiB"]
    text = CliRunner().invoke(cli, [*words, "--html", str(page)])
    assert text.exit_code == 0
    assert re.search(r"- recorded: 19( \(\d+-\d+\))? with less than 1 %", text.output)
    assert "<svg" in page.read_text()
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert document["schema"] == 1
    found = document["capacity"][0]["found"]
    assert [fit["fits"]["guests"] for fit in found["fits"]] == [19, 17]
    assert found["guests_by_peak"] == 10
    again = CliRunner().invoke(cli, [*words, "--json", "--probability", "0.5", "--resamples=100"])
    assert len(json.loads(again.stdout)["capacity"][0]["found"]["fits"]) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "1GiB"], "host: 1GiB are less than the 1229MiB that one guest holds"),
        (["--host", "0"], "--host: must be above 0"),
        (["--host", "8GiB", "--probability", "1"], "--probability: 1 is not between 0 and 1"),
        (["--host", "8GiB", "--after", "soon"], "--after: 'soon' is not a time"),
        (["--host", "8GiB", "--after", "1h"], "0 samples of resident memory"),
        (["--host", "8GiB", "--resamples", "7"], "--resamples: 7 will not do"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, options: list[str], says: str
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("time_s,resident_bytes\n0,3221225472\n1,1073741824\n9,1073741824\n")
    if "1GiB" in options:
        own.write_text(
            "time_s,resident_bytes\n"
            + "".join(f"{t},{size:.0f}\n" for t, size in zip(TIMES, LEVELS, strict=True))
        )
    result = CliRunner().invoke(cli, ["capacity", str(own), *options])
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["capacity", str(tmp_path / "nowhere"), "--host", "8GiB"])
    assert (result.exit_code, "no such run folder" in result.output) == (2, True)
