"""The result as text."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from emulator.report.answer import answer
from emulator.report.text import render_summary
from emulator.summary import BalloonFigures, OracleFigures, Phase, StrandedFigures, Summary, check
from tests.support.sample_run import (
    MIB,
    QUESTION,
    sample_scenario,
    sample_series,
    sample_summary,
    unmeasured_summary,
)


def _rendered(summary: Summary, width: int = 80, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    scenario = sample_scenario()
    console = Console(file=file, width=width)
    results = check(scenario.expect, summary)
    folder = Path("runs/20240503T091244Z-memhog")
    render_summary(summary, scenario, results, console, series=sample_series(), folder=folder)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    for summary in (sample_summary(), unmeasured_summary()):
        lines = _rendered(summary, width).splitlines()
        assert max(cell_len(line) for line in lines) <= width


def test_a_pipe_gets_plain_text_without_padding() -> None:
    text = _rendered(sample_summary())
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_it_tells_question_answer_figures_expectations_and_folder() -> None:
    text = " ".join(_rendered(sample_summary()).split())
    assert QUESTION in text
    assert answer(sample_summary()) in text
    assert "What is left at the end: measured 103 MiB, published 100 MiB (a letter" in text
    assert "measured as returned 1.72 GiB" in text
    assert "inflated 24 MiB" in text
    assert "times out of memory 3" in text
    assert "Expectations: 1 of 3 failed" in text
    assert "FAIL hinting.reclaim_latency_ms.p99 is 6.48 s, expected at most 5 s" in text
    assert "runs/20240503T091244Z-memhog" in text


def test_a_guest_without_a_balloon_has_no_figures_of_one() -> None:
    assert "Balloon" in _rendered(sample_summary())
    assert "alloon" not in _rendered(unmeasured_summary())


def test_an_encoding_without_blocks_gets_ascii() -> None:
    text = _rendered(sample_summary(), encoding="ascii")
    assert "#" in text


def test_what_was_not_measured_is_never_zero() -> None:
    scenario = sample_scenario()
    file = io.StringIO()
    render_summary(unmeasured_summary(), scenario, [], Console(file=file, width=80))
    after_question = file.getvalue().partition("seed 7")[2]
    after_question = after_question.partition("Published")[0]  # Others measured that.
    assert "not measured" in after_question
    assert not any(character.isdigit() for character in after_question)


def test_brackets_in_words_are_not_styles() -> None:
    phases = [Phase(name="[bold]x[/nope]", start_s=0.0, end_s=28.0)]
    assert "[bold]x[/nope]" in _rendered(sample_summary(phases=phases))


def test_control_characters_do_not_reach_the_terminal() -> None:
    phases = [Phase(name="\x1b[2Jx\ny", start_s=0.0, end_s=28.0)]
    text = _rendered(sample_summary(phases=phases))
    assert "\x1b" not in text
    assert "?[2Jx?y" in text


def test_answer_says_what_came_back_what_stayed_and_the_price() -> None:
    words = answer(sample_summary())
    assert words.startswith("Of the 983 MiB that the guest held at its peak, 880 MiB (90 %)")
    assert "half of the blocks within 3.31 s of being freed, the last after 8.4 s" in words
    assert "66.3 MiB in blocks below the reporting order" in words
    assert "125 ms of CPU time for each GiB returned" in words
    assert "page cache" not in words  # Measured, and nothing stayed there.


def test_answer_says_how_the_balloon_followed_its_target() -> None:
    said = "Of 5 targets the balloon reached 4, within 750 ms at most."
    waited = " Out of memory, vCPUs had 3 MiB of it back, and waited 2 ms for that."
    assert said + waited in answer(sample_summary())
    unknown = BalloonFigures(targets=2, targets_reached=0, oom_calls=1, oom_bytes=MIB)
    assert "vCPUs had 1 MiB of it back. " in answer(sample_summary(balloon=unknown))
    never = BalloonFigures(targets=1, targets_reached=0, oom_calls=0)
    assert "Of 1 target the balloon reached none." in answer(sample_summary(balloon=never))
    assert "balloon" not in answer(unmeasured_summary())


def test_answer_puts_a_violation_first() -> None:
    words = answer(sample_summary(oracle=OracleFigures(pages_checked=1000, violations=3)))
    assert words.startswith("Not sound: 3 of 1,000 checked pages")


def test_answer_when_nothing_came_back() -> None:
    summary = sample_summary(sample_series(stays_bytes=972 * MIB))
    assert answer(summary).startswith("Nothing came back to the host: of 983 MiB at the peak")


def test_answer_names_the_causes_that_were_not_measured() -> None:
    stranded = StrandedFigures(below_order_bytes=2 * MIB)
    words = answer(msgspec.structs.replace(sample_summary(), stranded=stranded))
    assert "2 MiB stayed although free, in blocks below the reporting order" in words
    assert "(per-CPU lists, page cache, in flight and not reported yet: not measured)" in words
