"""A comparison as text, as mail and as a page."""

import io
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from emulator.compare.comparison import Comparison
from emulator.compare.measured import FoundDifference
from emulator.report.comparison_curves import residency_band, residency_bands
from emulator.report.comparison_html import render_comparison_page
from emulator.report.comparison_pictures import frontier
from emulator.report.comparison_text import mail_text, render_comparison
from emulator.report.comparison_words import command_lines, difference_text, figure_label
from emulator.summary import SeriesRow
from tests.support.sample_comparison import REPEATS, sample_comparison


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return sample_comparison(tmp_path)


def found(mean: float, half_width: float | None, of: float, pairs: int = 1) -> FoundDifference:
    """Of several pairs, the least and the most are a tenth apart from the mean."""
    return FoundDifference(
        mean=mean,
        half_width=half_width,
        least=mean - 0.1 * abs(mean),
        most=mean + 0.1 * abs(mean),
        low=None,
        high=None,
        fraction=mean / of if of else None,
        half_width_fraction=half_width / of if of and half_width is not None else None,
        floor=0.0,
        pairs=pairs,
        verdict="less",
        is_better=True,
    )


@pytest.mark.parametrize(
    ("metric", "difference", "text"),
    [
        ("host.footprint_gib_min", found(-0.502, 0.0109, 1.0), "-50.2 ±1.1 %"),
        ("host.footprint_gib_min", found(-0.502, 0.1209, 1.0), "-50 ±13 %"),
        ("host.footprint_gib_min", found(-0.5, 0.0, 1.0), "-50.0 ±0 %"),
        ("host.footprint_gib_min", found(-0.5, None, 1.0), "-50.0 % (one pair)"),
        ("host.footprint_gib_min", found(-0.5, None, 1.0, 2), "-50.0 % (-55.0..-45.0)"),
        ("host.footprint_gib_min", found(-0.001, None, 1.0, 2), "-0.1 % (2 pairs)"),
        ("host.footprint_gib_min", found(0.0001, None, 1.0, 2), "+0.0 % (2 pairs)"),
        ("host.footprint_gib_min", found(0.0, None, 1.0, 2), "+0.0 % (2 pairs)"),
        ("stranded.percpu_bytes", found(16 << 20, None, 0.0, 2), "+16 MiB (2 pairs)"),
        ("host.footprint_gib_min", found(0.0, 0.0, 1.0), "equal"),
        ("host.footprint_gib_min", found(-0.0001, 0.2, 1.0), "+0 ±20 %"),
        ("stranded.percpu_bytes", found(16 << 20, 2 << 20, 0.0), "+16 MiB ±2 MiB"),
        ("stranded.percpu_bytes", found(16 << 20, 2 << 20, 4096.0), "+16 MiB ±2 MiB"),
        ("hinting.reclaim_latency_ms.p50", found(-1500.0, None, 0.0), "-1.5 s (one pair)"),
        ("cost.cpu_s_per_gib_returned", found(0.5, 0.1, 0.0), "+500 ms ±100 ms"),
    ],
)
def test_a_difference_is_never_without_its_interval(
    metric: str, difference: FoundDifference, text: str
) -> None:
    assert difference_text(metric, difference) == text


def test_labels_fit_their_column(comparison: Comparison) -> None:
    labels = [figure_label(figure.metric) for figure in comparison.figures]
    assert len(set(labels)) == len(labels)
    assert all(0 < len(label) <= 22 for label in labels)


def test_the_mail_fits_in_72_columns_of_ascii(comparison: Comparison) -> None:
    mail = mail_text(comparison)
    assert mail.isascii()
    assert max(map(len, mail.splitlines())) <= 72
    assert "page_reporting against off" in mail
    assert re.search(r"footprint, GiB min +1 +0\.51 +-49\.5 \+-[\d.]+ %  better", mail)
    assert "No difference detected" in mail
    assert re.search(r"operations per second +1 k/s +1 k/s \(\+0\.0 \+-[\d.]+ %\)", mail)
    assert "under bitmap (7 pages, in 1 of 1 run)" in " ".join(mail.split())
    assert "runs are missing" in mail
    assert "Left out, because a run failed: the host was killed" in mail
    assert mail.endswith("--mechanism \\\n    'page_reporting(order=0)'\n")


def test_what_only_one_mechanism_counts_is_shown_beside_the_tables(comparison: Comparison) -> None:
    own = {"ignored_frees": [1000.0, 1003.0, None], "stranded_bytes": [4096.0, 8192.0]}
    counting = msgspec.structs.replace(comparison.mechanisms[3], own={**own, "empty": [None]})
    changed = msgspec.structs.replace(comparison, mechanisms=[*comparison.mechanisms[:3], counting])
    mail = mail_text(changed)
    assert "What mechanisms count of their own, means of the runs" in mail
    assert "- bitmap: ignored frees 1,002; stranded 6 KiB\n" in mail
    page = render_comparison_page(changed, [None] * 4)
    assert "<strong>bitmap</strong>: ignored frees 1,002; stranded 6 KiB</li>" in page
    assert "count of their own" not in mail_text(comparison)


def test_hostile_and_long_names_neither_steer_nor_overflow(
    comparison: Comparison, tmp_path: Path
) -> None:
    first = comparison.mechanisms[1]
    hostile = msgspec.structs.replace(first, label="<script>\u6d4b" + "x" * 200)
    changed = msgspec.structs.replace(
        comparison,
        mechanisms=[comparison.mechanisms[0], hostile, *comparison.mechanisms[2:]],
        runs=[
            msgspec.structs.replace(run, mechanism=hostile.label)
            if run.mechanism == first.label
            else run
            for run in comparison.runs
        ],
        manifest={"argv": ["e", "y" * 90]},
        question="Why\x1b[2J?",
    )
    mail = mail_text(changed)
    assert "\x1b" not in mail
    assert max(map(len, mail.splitlines())) <= 72
    page = render_comparison_page(changed, residency_bands(comparison, tmp_path))
    assert "<script" not in page


def test_the_terminal_shows_curves_and_answer_in_80_columns(
    comparison: Comparison, tmp_path: Path
) -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=False)
    bands = residency_bands(comparison, tmp_path)
    render_comparison(comparison, bands, console, folder="runs/x/report.html")
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 72
    assert "Host resident memory over" in text
    assert re.search(r"page_reporting +[▁▂▃▄▅▆▇█]{30}", text)
    assert "- page_reporting: footprint -49.5 ±" in text
    assert "no difference detected in operations per second" in " ".join(text.split())
    assert text.endswith("Comparison: runs/x/report.html\n")


def test_one_run_of_each_claims_nothing_in_words(tmp_path: Path) -> None:
    mail = mail_text(sample_comparison(tmp_path, repeats=1))
    assert "Too few pairs for an interval" in mail
    assert "One run of each has no interval" in mail
    assert "better" not in mail and "worse" not in mail


def test_two_runs_of_each_show_both_and_claim_nothing_in_words(tmp_path: Path) -> None:
    comparison = sample_comparison(tmp_path, repeats=2)
    mail = mail_text(comparison)
    # Footprints 1.0 and 1.1 against 0.52 and 0.6: -0.48 and -0.5, of 1.05 on average.
    assert re.search(r"footprint, GiB min +1\.05 +0\.56 -46\.7 % \(-47\.6\.\.-45\.7\)", mail)
    assert "2 runs of each have no interval that says anything" in " ".join(mail.split())
    assert "better" not in mail and "worse" not in mail and "+-" not in mail
    page = render_comparison_page(comparison, residency_bands(comparison, tmp_path))
    assert "95 % intervals" not in page


def test_the_command_is_one_command_for_a_shell() -> None:
    lines = command_lines(["x", "compare", "memhog", "--mechanism", "a(b=1, c='d')"], 30)
    assert max(map(len, lines)) <= 30
    assert all(line.endswith(" \\") for line in lines[:-1])
    joined = "\n".join(lines).replace("\\\n", "")  # As a shell joins them.
    assert shlex.split(joined) == [
        *("python", "-m", "emulator", "compare", "memhog", "--mechanism", "a(b=1, c='d')")
    ]


def test_the_frontier_keeps_who_is_not_beaten_in_both(comparison: Comparison) -> None:
    by_cost = frontier(comparison)
    assert by_cost.metric == "cost.cpu_s_per_gib_returned"
    assert by_cost.best == [2]  # All cost the same in the sample, and it holds least.
    unmeasured = [
        msgspec.structs.replace(
            figure,
            mechanisms=[msgspec.structs.replace(m, mean=None) for m in figure.mechanisms],
        )
        if figure.metric == by_cost.metric
        else figure
        for figure in comparison.figures
    ]
    by_rate = frontier(msgspec.structs.replace(comparison, figures=unmeasured))
    assert by_rate.metric == "vcpus.operations_per_s"
    # Means: 1.0 and 1000, 0.505 and 1000.25, 0.305 and 800.75, 0.7 and 900.
    assert by_rate.best == [2, 1]


def test_a_band_reaches_from_the_least_to_the_most_while_half_of_the_runs_last() -> None:
    runs = [
        [SeriesRow(time_s=float(t), resident_bytes=level) for t in range(end + 1)]
        for level, end in ((10, 10), (20, 10), (60, 30))
    ]
    runs[0].insert(3, SeriesRow(time_s=2.5))  # Not measured.
    band = residency_band(runs)
    assert band is not None
    assert band.times_s[-1] == 10.0
    assert (set(band.low), set(band.middle), set(band.high)) == ({10.0}, {20.0}, {60.0})
    assert residency_band([[SeriesRow(time_s=0.0)], []]) is None
    assert residency_band([]) is None


class _Page(HTMLParser):
    """Checks balance while reading; keeps links, ids and whatever would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert tag not in ("script", "link", "img", "iframe")
        self.loads += [name for name in given if name in ("src", "srcset") or name[:2] == "on"]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_links_what_is_there(
    comparison: Comparison, tmp_path: Path
) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    page = render_comparison_page(comparison, residency_bands(comparison, tmp_path))
    reader = _Page()
    reader.feed(page)
    reader.close()
    assert reader.open == [] and reader.loads == []
    assert len(reader.ids) == len(set(reader.ids))
    for link in reader.links:
        if link.startswith("#"):
            assert link[1:] in reader.ids
        elif "repeat-2-bitmap" not in link:  # The run that failed left nothing in the sample.
            assert (tmp_path / link).is_file(), link
    links = [link for link in reader.links if link.endswith("summary.json")]
    assert len(links) == 3 * REPEATS + 1


def test_the_page_says_what_the_text_says(comparison: Comparison, tmp_path: Path) -> None:
    page = render_comparison_page(comparison, residency_bands(comparison, tmp_path))
    assert page.count("<svg") == 4  # Two pictures, each for a page and for a phone.
    assert comparison.question in page
    assert "Not sound: pages were discarded while in use under bitmap" in page
    assert "no difference detected (" in page
    assert "Left out, because a run failed: the host was killed" in page
    assert "in both than page_reporting(order=0,delay=100ms)" in page
    assert "seeds 1 to 4" in page


def test_equal_comparisons_give_equal_pages(tmp_path: Path) -> None:
    pages = []
    for place in ("one", "two"):
        comparison = sample_comparison(tmp_path / place)
        bands = residency_bands(comparison, tmp_path / place)
        pages.append(render_comparison_page(comparison, bands))
    assert pages[0] == pages[1]


def test_what_was_published_stands_beside_what_was_measured(
    comparison: Comparison, tmp_path: Path
) -> None:
    mail = " ".join(mail_text(comparison).split())
    page = render_comparison_page(comparison, residency_bands(comparison, tmp_path))
    assert "What is left at the end off: measured 103 MiB, published 100 MiB (a letter" in mail
    # 1000, 1010, 990, 1000 under off; 1003, 1005, 992, 1001 under page_reporting: +0.25 on average.
    price = "page_reporting: measured no difference detected (+0.0 "
    assert price + "+-" in mail and price + "±" in page
    assert re.search(
        r"page_reporting\(order=0,delay=100ms\): measured -19.9 \+-[\d.]+ %, published up to -2 %"
        r" \(the same letter\)",
        mail,
    )
    assert "bitmap: measured -10.0 %" not in mail


def test_several_published_differences_stand_in_one_table(
    comparison: Comparison, tmp_path: Path
) -> None:
    (one,) = [it for it in comparison.published if it.published.against is not None]
    words = msgspec.structs.replace(one.published, what="2. The other", figure="much " * 9 + "less")
    other = msgspec.structs.replace(one, published=words, measured=one.measured[:1])
    changed = msgspec.structs.replace(comparison, published=[*comparison.published, other])
    mail = mail_text(changed)
    assert "What is left at the end" in mail  # No difference, and so in a line of its own.
    table = mail[mail.index("Published differences to off") :]
    assert re.search(r"\n  up to -2 % +\(\+0\.0 \+-[\d.]+ %\) +-19\.9 \+-[\d.]+ %\n", table)
    assert re.search(r"\n2\. The other\n  much [much \n]+less", table) is None  # Beside the cells.
    assert re.search(r"\n2\. The other\n  much .*much +\(\+0\.0 \+-[\d.]+ %\)\n  .*less\n", table)
    assert "[1] page_reporting\n[2] page_reporting(order=0,delay=100ms)\n" in table
    assert table.count("Published by the same letter.") == 1
    assert max(map(len, mail.splitlines())) <= 72
    assert "measured -19.9" not in mail
    page = render_comparison_page(changed, residency_bands(changed, tmp_path))
    row = page[page.index("2. The other</th>") :].split("</tr>")[0]
    assert row.count("<td>") == 3 and row.endswith("<td></td>")


def test_published_differences_too_wide_for_a_table_stay_in_lines(comparison: Comparison) -> None:
    (one,) = [it for it in comparison.published if it.published.against is not None]
    many = [
        msgspec.structs.replace(one.measured[0], mechanism=it.label) for it in comparison.mechanisms
    ]
    wide = msgspec.structs.replace(one, measured=many)
    mail = mail_text(msgspec.structs.replace(comparison, published=[wide, one]))
    assert "Published differences" not in mail
    assert "bitmap: measured" in " ".join(mail.split())
