"""The report page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emulator.report.answer import answer
from emulator.report.html import Run, render_page, run_labels, write_report
from emulator.report.markup import Markup, element, joined
from emulator.report.pictures import Canvas, drawn_columns, time_lapse
from emulator.run_folder import RunFolder
from emulator.summary import OracleFigures, Phase, SeriesRow
from tests.support.sample_run import (
    sample_folder,
    sample_scenario,
    sample_series,
    sample_summary,
    unmeasured_summary,
)

_VOID = {"meta", "br", "hr", "img", "link", "input"}
_LOADING = {"src", "srcset", "data", "poster", "action", "background"}


class _Page(HTMLParser):
    """Checks balance while reading, and keeps what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.unlabelled_pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"an attribute of {tag} is given twice"
        self.tags.append(tag)
        self.loads += [value for name, value in given.items() if name in _LOADING]
        self.loads += [name for name in given if name.startswith("on")]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        elif "href" in given or "xlink:href" in given:
            reference = given.get("href", given.get("xlink:href", ""))
            self.loads += [] if reference.startswith("#") else [reference]
        if given.get("role") == "img" and not given.get("aria-label"):
            self.unlabelled_pictures += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open[-1:]:
            self.words += data


def _read(page: str) -> _Page:
    reader = _Page()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def _words(page: str) -> str:
    return " ".join(_read(page).words.replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return sample_folder(tmp_path / "run")


def _three_runs(tmp_path: Path) -> list[RunFolder]:
    violated = sample_summary(
        mechanism="bitmap", oracle=OracleFigures(pages_checked=10, violations=3)
    )
    return [
        sample_folder(tmp_path / "one"),
        sample_folder(tmp_path / "two", summary=violated),
        sample_folder(tmp_path / "three", summary=unmeasured_summary(), series=[]),
    ]


def test_one_run_is_balanced_and_says_what_the_text_says(folder: RunFolder) -> None:
    path = folder.path / "report.html"
    write_report([folder], path)
    page = path.read_text(encoding="utf-8")
    words = _words(page)
    assert answer(folder.read_summary()) in words
    assert "python -m emulator scenario scenario.toml" in words
    assert "p99 is 6.48 s, expected at most 5 s" in words
    assert words.count("✓ passed") == 2
    assert words.count("✗ failed") == 1
    assert 'title="1,845,493,760 bytes"' in page


def test_what_was_published_stands_beside_what_was_measured(tmp_path: Path) -> None:
    folder = sample_folder(tmp_path)
    page = render_page([Run.read(folder)], tmp_path)
    assert "measured 103 MiB, published 100 MiB (a letter" in page
    assert "published up to -2 % (the same letter); not measured here: a difference to off" in page


def test_nothing_is_loaded_and_no_script_runs(tmp_path: Path) -> None:
    runs = [Run.read(folder) for folder in _three_runs(tmp_path)]
    page = render_page(runs, tmp_path)
    reader = _read(page)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
    assert reader.loads == []
    addresses = set(re.findall(r"https?://[^\s\"'<)]*", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", page)


def test_links_lead_to_files_and_sections_that_are_there(tmp_path: Path) -> None:
    runs = [Run.read(folder) for folder in _three_runs(tmp_path)]
    reader = _read(render_page(runs, tmp_path))
    assert len(reader.ids) == len(set(reader.ids))
    assert "one/summary.json" in reader.links
    for link in reader.links:
        if link.startswith("#"):
            assert link[1:] in reader.ids
        else:
            assert (tmp_path / link).is_file()


def test_pictures_have_words_for_who_cannot_see_them(tmp_path: Path) -> None:
    reader = _read(render_page([Run.read(f) for f in _three_runs(tmp_path)], tmp_path))
    assert "svg" in reader.tags
    assert reader.unlabelled_pictures == 0


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    pages = []
    for place in ("first", "second"):
        folders = _three_runs(tmp_path / place)
        path = tmp_path / place / "report.html"
        write_report(folders, path)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    hostile = "</style></title><script>alert(1)</script> \"><img src=x onerror=y> & $\\frac{ '"
    series = sample_series()
    phases = [Phase(name=hostile, start_s=0.0, end_s=28.4), Phase(name="$", start_s=4, end_s=9)]
    summary = sample_summary(series, phases=phases, mechanism=hostile, workload={hostile: hostile})
    folders = [
        sample_folder(
            tmp_path / name, scenario=sample_scenario(hostile), summary=summary, series=series
        )
        for name in ("a", "b")
    ]
    for some in (folders[:1], folders):
        page = render_page([Run.read(folder) for folder in some], tmp_path)
        reader = _read(page)
        assert "script" not in reader.tags
        assert "img" not in reader.tags
        assert reader.loads == []
        assert " ".join(hostile.split()) in _words(page)


def test_what_was_not_measured_is_said_so(tmp_path: Path) -> None:
    folder = sample_folder(tmp_path / "run", summary=unmeasured_summary(), series=[])
    words = _words(render_page([Run.read(folder)], tmp_path))
    assert "How much memory came back to the host was not measured." in words
    assert "Memory over time: not measured" in words
    assert "0 B" not in words
    assert "0 s" not in words


def test_curves_with_gaps_and_single_samples_are_drawn(tmp_path: Path) -> None:
    one = [SeriesRow(time_s=0.0, resident_bytes=0)]
    gaps = [SeriesRow(time_s=float(i), resident_bytes=None if i % 3 else i << 20) for i in range(9)]
    for name, series in (("one", one), ("gaps", gaps)):
        folder = sample_folder(tmp_path / name, summary=unmeasured_summary(), series=series)
        page = render_page([Run.read(folder)], tmp_path)
        assert "svg" in _read(page).tags
        assert "Guest free memory and guest reported memory: not measured." in _words(page)


def test_a_folder_without_samples_and_manifest_still_gives_a_page(folder: RunFolder) -> None:
    (folder.path / "series.csv").unlink()
    (folder.path / "manifest.json").unlink()
    page = render_page([Run.read(RunFolder.open(folder.path))], folder.path)
    assert "manifest.json" not in _read(page).links


def test_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    runs = [Run.read(folder) for folder in _three_runs(tmp_path)]
    assert run_labels(runs) == ["page_reporting", "bitmap", "off"]
    assert run_labels([runs[0], runs[0]]) == ["1: one", "2: one"]


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run folder"):
        render_page([], Path())


def test_markup_escapes_text_and_keeps_markup() -> None:
    assert element("p", "<&>", title='"') == '<p title="&quot;">&lt;&amp;&gt;</p>'
    assert element("p", [Markup("<b></b>"), "<"]) == "<p><b></b>&lt;</p>"
    assert element("meta", charset="utf-8", class_=None) == '<meta charset="utf-8">'
    assert joined("a<b") == "a&lt;b"


def test_a_curve_is_drawn_where_something_was_measured_that_is_not_always_0() -> None:
    rows = [
        SeriesRow(
            time_s=float(at),
            resident_bytes=0,
            guest_free_bytes=0,
            guest_reported_bytes=0,
            page_cache_bytes=at,
            dirty_bytes=0,
            balloon_bytes=0,
            balloon_target_bytes=4096,
        )
        for at in range(3)
    ]
    drawn = ["resident_bytes", "guest_free_bytes", "balloon_target_bytes", "page_cache_bytes"]
    assert drawn_columns(rows) == drawn
    svg = time_lapse(rows, [], Canvas("x", 1000, 400)) or ""
    for label in ("host resident", "guest free", "its target", "guest page cache"):
        assert label in svg
    for label in ("guest reported", "of it dirty", "swapped out", ">balloon<"):
        assert label not in svg


def test_names_of_phases_that_overlap_do_not_cover_each_other() -> None:
    """Guests begin one after another: the phases of all together begin soon and end late."""
    rows = [SeriesRow(time_s=float(at), resident_bytes=1) for at in range(101)]
    phases = [
        Phase(name="build", start_s=0.0, end_s=90.0),
        Phase(name="built", start_s=40.0, end_s=95.0),
        Phase(name="clean", start_s=42.0, end_s=97.0),
        Phase(name="cleaned", start_s=60.0, end_s=100.0),
    ]
    svg = time_lapse(rows, phases, Canvas("x", 1000, 400)) or ""
    assert "1 build" in svg and "4 cleaned" in svg and "3 clean" in svg
    assert "2 built" not in svg  # It has 2 s of room before the next begins.
