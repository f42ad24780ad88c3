"""The parts of a page that show one run: each function gives one finished piece of HTML."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from emulator.published import Beside
from emulator.report.answer import answer, came_back_bytes, came_back_fraction, stranded_parts
from emulator.report.expectations import expectation_words
from emulator.report.markup import Markup, element, joined
from emulator.report.pictures import Canvas, drawn_columns, time_lapse
from emulator.report.published import beside_words
from emulator.report.tables import Figure, FigureTable, figure_tables, setup_words, size_figure
from emulator.report.wording import (
    NOT_MEASURED,
    count_text,
    duration_text,
    exact_text,
    keyed_text,
    label_of,
    listed,
    milliseconds_text,
    percent_text,
    size_text,
)
from emulator.summary import ExpectationResult, Phase, SeriesRow, Summary

#: The files of a run folder that a reader may want, and what they hold.
RAW_FILES: Final = {
    "summary.json": "all figures",
    "series.csv": "all samples",
    "series-guests.csv": "all samples of each guest",
    "capacity.json": "how many guests fit",
    "reports.csv": "reported ranges",
    "scenario.toml": "what was run",
    "manifest.json": "machine and versions",
    "log.jsonl": "log",
}

_UNITS: Final = "B|KiB|MiB|GiB|TiB|s|ms|us|ns|min|h"


def eyebrow(summary: Summary) -> Markup:
    """The line above the question: what was run, in which guest."""
    name, *others = setup_words(summary)
    parts = [element("strong", name), *(element("span", words) for words in others)]
    return element("p", parts, class_="eyebrow")


def answer_paragraph(summary: Summary) -> Markup:
    """The answer in the words of the text, marked as an alarm if the run was not sound."""
    words = re.sub(rf"(?<=\d) (?=({_UNITS})\b|%)", "\N{NO-BREAK SPACE}", answer(summary))
    return element("p", words, class_="answer alarm" if _unsound(summary) else "answer")


def _unsound(summary: Summary) -> bool:
    return bool(summary.oracle.violations)


def tiles(summary: Summary) -> Markup:
    """The four figures that decide: how much, how soon, at what price, and whether sound."""
    came_back, fraction = came_back_bytes(summary), came_back_fraction(summary)
    latency, cost, oracle = (
        summary.hinting.reclaim_latency_ms,
        summary.cost.cpu_s_per_gib_returned,
        summary.oracle,
    )
    p50, p99 = (latency.p50, latency.p99) if latency else (None, None)
    of_peak = "" if fraction is None else f"{percent_text(fraction)} of the peak"
    in_use = "pages discarded while in use"
    checked = f"{in_use}, {count_text(oracle.pages_checked)} checked"
    return element(
        "ul",
        [
            _tile("Came back", size_text(came_back), of_peak, exact_text(came_back, "bytes")),
            _tile(
                "Freed to returned",
                milliseconds_text(p50),
                f"median; 99 % within {milliseconds_text(p99)}" if p99 is not None else "median",
                exact_text(p50, "ms"),
            ),
            _tile("Price", duration_text(cost), "CPU time per GiB", exact_text(cost, "s")),
            _tile(
                "Unsound" if _unsound(summary) else "Soundness",
                count_text(oracle.violations),
                checked if oracle.pages_checked is not None else in_use,
                exact_text(oracle.violations, "violations"),
                bad=_unsound(summary),
            ),
        ],
        class_="tiles",
    )


def _tile(name: str, number: str, more: str, exact: str, *, bad: bool = False) -> Markup:
    none = number == NOT_MEASURED
    return element(
        "li",
        [
            element("span", name, class_="name"),
            element("span", number, class_="number none" if none else "number", title=exact),
            element("span", more, class_="more"),
        ],
        class_="bad" if bad else None,
    )


def picture(wide: str, narrow: str, alternative: str, caption: str) -> Markup:
    """A figure in two sizes, of which the style sheet shows the one that fits."""
    both = [
        element("div", Markup(svg), class_=f"picture {size}", role="img", aria_label=alternative)
        for size, svg in (("wide", wide), ("narrow", narrow))
    ]
    return element("figure", [*both, element("figcaption", caption)])


_CURVE_WORDS: Final = {
    "resident_bytes": "The filled area is memory that the host has given to the guest.",
    "guest_free_bytes": "The dashed line is what the guest has free.",
    "guest_reported_bytes": "The dotted one is what it has reported of that to the host.",
    "balloon_bytes": "The dashes and dots are what is in the guest's balloon.",
    "balloon_target_bytes": "The dots beside them are how large the host wants it.",
    "page_cache_bytes": "The long dashes are the guest's page cache.",
    "dirty_bytes": "What is dirty in it, or on its way to the disk, is drawn below.",
    "swapped_bytes": "The thin grey line is what the host has swapped out.",
}


def memory_over_time(
    summary: Summary, series: Sequence[SeriesRow], name: str, heading: str
) -> Markup:
    """The time lapse with its caption, or a sentence that there is none."""
    title = element(heading, "Memory over time")
    wide = time_lapse(series, summary.phases, Canvas(f"{name}-wide", 1000, 400))
    narrow = time_lapse(series, summary.phases, Canvas(f"{name}-narrow", 380, 340))
    if wide is None or narrow is None:
        return element("section", [title, element("p", f"Memory over time: {NOT_MEASURED}.")])
    host = summary.host
    phases = f" Phases: {listed([p.name for p in summary.phases])}." if summary.phases else ""
    alternative = (
        f"Curve of host resident memory beside guest free and guest reported memory. Resident: "
        f"{size_text(host.resident_bytes_start)} at the start, "
        f"{size_text(host.resident_bytes_peak)} at the peak, "
        f"{size_text(host.resident_bytes_end)} at the end.{phases}"
    )
    missing = [
        words
        for key, words in (
            ("resident_bytes", "host resident memory"),
            ("guest_free_bytes", "guest free memory"),
            ("guest_reported_bytes", "guest reported memory"),
        )
        if all(getattr(row, key) is None for row in series)
    ]
    caption = " ".join(words for key, words in _CURVE_WORDS.items() if key in drawn_columns(series))
    if missing:
        caption += f" {listed(missing).capitalize()}: {NOT_MEASURED}."
    return element("section", [title, picture(wide, narrow, alternative, caption)])


def how_soon(summary: Summary, heading: str) -> Markup:
    """Reclaim latency percentiles as bars."""
    title = element(heading, "How soon it came back")
    latency = summary.hinting.reclaim_latency_ms
    values = [
        (label, getattr(latency, key) if latency else None)
        for key, label in (("p50", "half"), ("p90", "90 %"), ("p99", "99 %"), ("max", "all"))
    ]
    longest = max((value for _, value in values if value is not None), default=0)
    if not any(value is not None for _, value in values):
        return element("section", [title, element("p", NOT_MEASURED, class_="none")])
    rows: list[Markup] = []
    for label, value in values:
        share = 100 * value / longest if value is not None and longest > 0 else 0
        fill = element("span", class_="fill", style=f"width:{share:.1f}%")
        rows.append(element("dt", label))
        rows.append(
            element(
                "dd",
                [
                    element("span", fill if value is not None else "", class_="track"),
                    element("span", milliseconds_text(value), title=exact_text(value, "ms")),
                ],
            )
        )
    note = "From a block's last free to the end of its discard on the host."
    return element(
        "section",
        [title, element("dl", rows, class_="bars"), element("p", note, class_="note")],
    )


def what_stayed(summary: Summary, heading: str) -> Markup:
    """Free memory that was not returned, as one bar stacked by cause, with its legend."""
    title = element(heading, "What stayed although free")
    parts = stranded_parts(summary)
    total = sum(size for _, _, size in parts if size is not None)
    pieces: list[Markup] = [title]
    if total:
        bar = [
            element("span", class_=f"cause-{i}", style=f"width:{100 * size / total:.2f}%")
            for i, (_, _, size) in enumerate(parts)
            if size
        ]
        words = listed([f"{size_text(size)} {words}" for _, words, size in parts if size])
        pieces.append(element("div", bar, class_="stack", role="img", aria_label=words))
    elif any(size is not None for _, _, size in parts):
        pieces.append(element("p", "No free memory stayed behind."))
    pieces.append(
        element(
            "ul",
            [
                element(
                    "li",
                    [
                        element("span", class_=f"swatch cause-{i}", aria_hidden="true"),
                        element("span", label),
                        element(
                            "span",
                            size_text(size),
                            class_="size none" if size is None else "size",
                            title=exact_text(size, "bytes"),
                        ),
                    ],
                )
                for i, (label, _, size) in enumerate(parts)
            ],
            class_="legend",
        )
    )
    pieces.append(
        element("p", f"{size_text(total)} in all, at the end of the run.", class_="note")
        if any(size is not None for _, _, size in parts)
        else element("p", f"{NOT_MEASURED}.", class_="note")
    )
    return element("section", pieces)


def all_figures(summary: Summary, heading: str) -> Markup:
    """Every figure of the summary, in tables."""
    tables = [_figure_table(table) for table in figure_tables(summary)]
    return element(
        "section",
        [element(heading, "All figures"), element("div", tables, class_="columns")],
    )


def _figure_table(table: FigureTable) -> Markup:
    rows = [
        element("tr", [element("th", figure.label, scope="row"), figure_cell(figure)])
        for figure in table.shown()
    ]
    return element("table", [element("caption", table.title), element("tbody", rows)])


def figure_cell(figure: Figure) -> Markup:
    """A table cell with the reading of a figure, and its exact value as a tooltip."""
    none = "none" if figure.text == NOT_MEASURED else None
    return element("td", figure.text, title=figure.exact, class_="bad" if figure.bad else none)


def phase_table(phases: Sequence[Phase], heading: str) -> Markup:
    """The phases in order; empty without any."""
    if not phases:
        return Markup()
    names = ("", "Phase", "from", "for", "resident", "to", "operations")
    head = element("tr", [element("th", name, scope="col") for name in names[1:]])
    rows = [
        element(
            "tr",
            [
                element("th", f"{number} {phase.name}", scope="row"),
                *(
                    figure_cell(figure)
                    for figure in (
                        _seconds_figure(phase.start_s),
                        _seconds_figure(phase.end_s - phase.start_s),
                        size_figure("", phase.resident_bytes_start),
                        size_figure("", phase.resident_bytes_end),
                        Figure(
                            "",
                            count_text(phase.operations),
                            exact_text(phase.operations, "operations"),
                        ),
                    )
                ),
            ],
        )
        for number, phase in enumerate(phases, start=1)
    ]
    return element("section", [element(heading, "Phases"), scrolled_table(head, rows, "Phases")])


def scrolled_table(head: Markup, rows: Sequence[Markup], name: str) -> Markup:
    """A wide table in a frame of its own that scrolls sideways, also by keyboard."""
    table = element("table", [element("thead", head), element("tbody", rows)])
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def _seconds_figure(duration_s: float) -> Figure:
    return Figure("", duration_text(duration_s), exact_text(duration_s, "seconds"))


def verdicts(expectations: Sequence[ExpectationResult], heading: str) -> Markup:
    """What the scenario expected, and whether it came true; empty without expectations."""
    if not expectations:
        return Markup()
    failed = sum(not result.passed for result in expectations)
    title = "Expectations: " + (f"{failed} of {len(expectations)} failed" if failed else "all met")
    items = [
        element(
            "li",
            [
                element("span", "✓ passed" if result.passed else "✗ failed", class_="verdict"),
                element(
                    "span",
                    [element("code", result.metric), f" {expectation_words(result)}"],
                ),
            ],
            class_=None if result.passed else "failed",
        )
        for result in expectations
    ]
    return element("section", [element(heading, title), element("ul", items, class_="verdicts")])


def published(besides: Sequence[Beside], heading: str) -> Markup:
    """What sources published, each beside what was measured; empty without any."""
    return published_list([(b.published.what, [beside_words(b)]) for b in besides], heading)


def published_list(items: Sequence[tuple[str, Sequence[str]]], heading: str) -> Markup:
    """Published figures: what each is of, and in words what was published and measured."""
    if not items:
        return Markup()
    listed_items = [
        element("li", [element("strong", what), *(element("p", line) for line in lines)])
        for what, lines in items
    ]
    title = element(heading, "Published, and measured here")
    return element("section", [title, element("ul", listed_items, class_="published")])


def how_it_was_run(
    manifest: Mapping[str, Any], files: Sequence[tuple[str, str]], scenario: str, heading: str
) -> Markup:
    """The command that runs the file `scenario` again, the manifest, and the raw files' links.

    `files` holds the `(address, name)` of each raw file that is there.
    """
    rerun = shlex.join(["python", "-m", "emulator", "scenario", scenario])
    pieces: list[Markup] = [
        element(heading, "Run it again"),
        element("pre", element("code", rerun)),
        element("dl", _manifest_items(manifest), class_="manifest"),
    ]
    if files:
        links = [
            element("li", [element("a", name, href=address), f" {RAW_FILES[name]}"])
            for address, name in files
        ]
        pieces.append(element("ul", links, class_="files"))
    return element("section", pieces)


def _manifest_items(manifest: Mapping[str, Any]) -> list[Markup]:
    items: list[Markup] = []
    for key, value in manifest.items():
        if key == "schema":
            continue
        name = "command line" if key == "argv" else label_of(str(key))
        items += [element("dt", name), element("dd", _manifest_text(value))]
    return items


def _manifest_text(value: Any) -> Markup:
    if value is None:
        return joined("not recorded")
    if isinstance(value, Mapping):
        return joined(", ".join(f"{label_of(str(k))} {_one_text(k, v)}" for k, v in value.items()))
    if isinstance(value, list | tuple):
        return element("code", shlex.join(str(part) for part in value))
    return joined(str(value))


def _one_text(key: object, value: Any) -> str:
    return "not recorded" if value is None else keyed_text(str(key), value)[0]
