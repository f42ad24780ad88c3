"""One self-contained HTML file that shows one run, or several beside each other.

The page has no script and loads nothing: it opens offline, fits in a mail, and a content security
policy in its head holds the browser to that.  Equal run folders give equal bytes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from emulator.capacity.capacities import CapacityOf
from emulator.capacity.recorded import capacity_in
from emulator.config.scenario import Scenario
from emulator.published import beside_run
from emulator.report import sections
from emulator.report.answer import came_back_bytes, came_back_fraction
from emulator.report.capacity_html import capacity_section
from emulator.report.free_orders_picture import free_orders_section
from emulator.report.guests import guests_section
from emulator.report.markup import Markup, element, joined
from emulator.report.page_style import STYLE
from emulator.report.pictures import Canvas, residency_of_runs
from emulator.report.tables import Figure, size_figure
from emulator.report.wording import (
    count_text,
    counted,
    duration_text,
    exact_text,
    milliseconds_text,
    percent_text,
    rate_text,
    size_text,
)
from emulator.run_folder import MANIFEST, SCENARIO, SERIES, RunFolder, write_atomically
from emulator.summary import ExpectationResult, SeriesRow, Summary, check

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder, read."""

    path: Path
    scenario: Scenario
    summary: Summary
    series: Sequence[SeriesRow]
    guests: Sequence[Sequence[SeriesRow]]  # Of several guests: the samples of each.
    capacities: Sequence[CapacityOf]
    results: Sequence[ExpectationResult]
    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """All of a folder; samples or a manifest that are not there are taken as empty.

        Raises `ConfigError` for a damaged file.
        """
        scenario, summary = folder.read_scenario(), folder.read_summary()
        return cls(
            path=folder.path,
            scenario=scenario,
            summary=summary,
            series=folder.read_series() if (folder.path / SERIES).is_file() else [],
            guests=folder.read_guests_series(),
            capacities=capacity_in(folder, scenario),
            results=check(scenario.expect, summary),
            manifest=folder.read_manifest() if (folder.path / MANIFEST).is_file() else {},
        )


def write_report(run_folders: Sequence[RunFolder], path: Path) -> None:
    """Write the page about one or more run folders to `path`, replacing what is there.

    Raises `ConfigError` for a damaged run folder or if the file cannot be written, `ValueError`
    without a run folder.
    """
    write_atomically(path, render_page([Run.read(folder) for folder in run_folders], path.parent))


def render_page(runs: Sequence[Run], beside: Path) -> str:
    """The page as text; links to raw files are relative to the folder `beside`.

    Raises `ValueError` without a run.
    """
    if not runs:
        raise ValueError("a report needs at least one run folder")
    questions = {run.scenario.question for run in runs}
    if len(runs) == 1:
        title = runs[0].scenario.question
        body = _one_run(runs[0], beside)
    else:
        title = questions.pop() if len(questions) == 1 else f"{len(runs)} runs compared"
        body = _several_runs(runs, title, beside)
    return whole_page(title, body)


def whole_page(title: str, body: Markup) -> str:
    """A page of this look around `body`."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(STYLE)),
    ]
    note = (
        "This page loads nothing and runs no script. Sizes are binary (1 MiB = 1,048,576 bytes); "
        "hover over a figure for its exact value."
    )
    page = element("div", [body, element("footer", note)], class_="page")
    document = element("html", [element("head", head), element("body", page)], lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def render_capacity_page(capacities: Sequence[CapacityOf], question: str) -> str:
    """The page as text, of nothing but how many guests fit."""
    body = [
        element("header", element("h1", question)),
        element("main", capacity_section(capacities, "capacity", "h2")),
    ]
    return whole_page(question, joined(body))


def _one_run(run: Run, beside: Path) -> Markup:
    header = element(
        "header",
        [
            sections.eyebrow(run.summary),
            element("h1", run.scenario.question),
            sections.answer_paragraph(run.summary),
            sections.tiles(run.summary),
        ],
    )
    return joined([header, element("main", _run_sections(run, "run", beside, "h2"))])


def _run_sections(run: Run, name: str, beside: Path, heading: str) -> list[Markup]:
    summary = run.summary
    pair = [sections.how_soon(summary, heading), sections.what_stayed(summary, heading)]
    files = [
        (quote(os.path.relpath(run.path / file, beside)), file)
        for file in sections.RAW_FILES
        if (run.path / file).is_file()
    ]
    scenario = os.path.relpath(run.path / SCENARIO, beside)
    return [
        sections.memory_over_time(summary, run.series, name, heading),
        guests_section(summary, run.guests, run.scenario.host.memory_bytes, name, heading),
        capacity_section(run.capacities, f"{name}-capacity", heading),
        free_orders_section(summary, name, heading),
        element("div", pair, class_="pair"),
        sections.verdicts(run.results, heading),
        sections.published(beside_run(run.scenario, summary), heading),
        sections.phase_table(summary.phases, heading),
        sections.all_figures(summary, heading),
        sections.how_it_was_run(run.manifest, files, scenario, heading),
    ]


def _several_runs(runs: Sequence[Run], title: str, beside: Path) -> Markup:
    labels = run_labels(runs)
    links = [
        element("li", element("a", label, href=f"#run-{number}"))
        for number, label in enumerate(labels, start=1)
    ]
    header = element(
        "header",
        [
            element("p", counted(len(runs), "run"), class_="eyebrow"),
            element("h1", title),
            element("nav", element("ul", links), aria_label="Runs"),
        ],
    )
    common = [_common_picture(runs, labels), _comparison(runs, labels)]
    articles = [
        element(
            "article",
            [
                sections.eyebrow(run.summary),
                element("h2", label),
                element("p", run.scenario.question, class_="question")
                if run.scenario.question != title
                else "",
                sections.answer_paragraph(run.summary),
                sections.tiles(run.summary),
                *_run_sections(run, f"run-{number}", beside, "h3"),
            ],
            id=f"run-{number}",
        )
        for number, (run, label) in enumerate(zip(runs, labels, strict=True), start=1)
    ]
    return joined([header, element("main", [*common, *articles])])


def run_labels(runs: Sequence[Run]) -> list[str]:
    """The shortest names that tell the runs apart: mechanism, vCPUs, scenario, then the folder."""
    naming: tuple[Callable[[Run], str], ...] = (
        lambda run: run.summary.mechanism,
        lambda run: f"{run.summary.mechanism}, {counted(run.summary.guest.vcpus or 0, 'vCPU')}",
        lambda run: f"{run.summary.scenario}, {run.summary.mechanism}",
        lambda run: f"{run.summary.mechanism}, seed {run.summary.seed}",
        lambda run: run.path.name,
    )
    for name in naming:
        labels = [name(run) for run in runs]
        if len(set(labels)) == len(runs):
            return labels
    return [f"{number}: {run.path.name}" for number, run in enumerate(runs, start=1)]


def _common_picture(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    curves = [(label, run.series) for label, run in zip(labels, runs, strict=True)]
    title = element("h2", "Host resident memory, all runs")
    wide = residency_of_runs(curves, Canvas("runs-wide", 1000, 400))
    narrow = residency_of_runs(curves, Canvas("runs-narrow", 380, 360))
    if wide is None or narrow is None:
        return element("section", [title, element("p", "No run has samples of it.")])
    alternative = "Curves of host resident memory. " + " ".join(
        f"{label}: {size_text(run.summary.host.resident_bytes_peak)} at the peak, "
        f"{size_text(run.summary.host.resident_bytes_end)} at the end."
        for label, run in zip(labels, runs, strict=True)
    )
    caption = "Lower is better: what a curve loses has come back to the host."
    return element("section", [title, sections.picture(wide, narrow, alternative, caption)])


def _comparison(runs: Sequence[Run], labels: Sequence[str]) -> Markup:
    columns = [figure.label for figure in _decisive_figures(runs[0].summary)]
    head = [element("th", name, scope="col") for name in ("Run", *columns)]
    rows = []
    for number, (run, label) in enumerate(zip(runs, labels, strict=True), start=1):
        cells = [sections.figure_cell(figure) for figure in _decisive_figures(run.summary)]
        name = element("th", element("a", label, href=f"#run-{number}"), scope="row")
        rows.append(element("tr", [name, *cells]))
    table = sections.scrolled_table(element("tr", head), rows, "Runs side by side")
    return element("section", [element("h2", "Side by side"), table])


def _decisive_figures(summary: Summary) -> list[Figure]:
    latency, cost = summary.hinting.reclaim_latency_ms, summary.cost.cpu_s_per_gib_returned
    p50, p99 = (latency.p50, latency.p99) if latency else (None, None)
    rate, violations = summary.vcpus.operations_per_s, summary.oracle.violations
    fraction = came_back_fraction(summary)
    return [
        size_figure("came back", came_back_bytes(summary)),
        Figure("of the peak", percent_text(fraction), exact_text(fraction, "")),
        Figure("median after", milliseconds_text(p50), exact_text(p50, "ms")),
        Figure("99 % after", milliseconds_text(p99), exact_text(p99, "ms")),
        Figure("CPU per GiB", duration_text(cost), exact_text(cost, "s")),
        Figure("operations", rate_text(rate), exact_text(rate, "per second")),
        Figure(
            "violations",
            count_text(violations),
            exact_text(violations, "violations"),
            bad=bool(violations),
        ),
    ]
