"""A comparison as one self-contained HTML file, in the look of the report of a run."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from emulator.compare.comparison import Comparison, FigureOfAll
from emulator.compare.measured import FigureOfMechanism, FoundDifference
from emulator.report import sections
from emulator.report.capacity_html import capacity_section
from emulator.report.comparison_curves import Band
from emulator.report.comparison_pictures import (
    COST,
    FOOTPRINT,
    frontier,
    frontier_picture,
    residency_picture,
)
from emulator.report.comparison_published import (
    PublishedTable,
    published_lines,
    published_tables,
)
from emulator.report.comparison_text import mail_text
from emulator.report.comparison_words import (
    DECISIVE,
    answers,
    command_lines,
    difference_text,
    figure_label,
    groups,
    left_behind,
    method_text,
    own_figures,
    quality_text,
    setup_text,
    unmeasured,
    value_text,
    verdict_text,
    violations_text,
)
from emulator.report.html import whole_page
from emulator.report.markup import Markup, element, joined
from emulator.report.pictures import Canvas
from emulator.report.published import figure_text
from emulator.report.wording import NOT_MEASURED, count_text, exact_text, listed, size_text
from emulator.run_folder import write_atomically


def write_comparison(comparison: Comparison, bands: Sequence[Band | None], path: Path) -> None:
    """Write the page to `path`, which lies in the comparison's folder.

    Raises ConfigError if it cannot be written.
    """
    write_atomically(path, render_comparison_page(comparison, bands))


def render_comparison_page(comparison: Comparison, bands: Sequence[Band | None]) -> str:
    """The page as text; links are relative to the comparison's folder.

    `bands`: residency of each mechanism, in their order.
    """
    main = [
        _residency(comparison, bands),
        _frontier(comparison),
        capacity_section(comparison.capacity, "capacity", "h2"),
        _overview(comparison),
        _left_behind(comparison),
        _tables(comparison),
        *(_published_table(table) for table in published_tables(comparison)),
        sections.published_list(
            published_lines(comparison, tables=published_tables(comparison)), "h2"
        ),
        _method(comparison),
        _runs(comparison),
        _mail(comparison),
    ]
    body = joined([_header(comparison), element("main", main)])
    return whole_page(comparison.question, body)


def _header(comparison: Comparison) -> Markup:
    violations = violations_text(comparison)
    items = [element("li", sentence) for sentence in answers(comparison)]
    name, *others = setup_text(comparison).split(", ")
    eyebrow = [element("strong", name), *(element("span", words) for words in others)]
    return element(
        "header",
        [
            element("p", eyebrow, class_="eyebrow"),
            element("h1", comparison.question),
            element("p", violations, class_="answer alarm") if violations else "",
            element("p", f"Compared with {comparison.baseline.label}:", class_="answer"),
            element("ul", items, class_="answers"),
        ],
    )


def _residency(comparison: Comparison, bands: Sequence[Band | None]) -> Markup:
    title = element("h2", "Host resident memory")
    labels = [mechanism.label for mechanism in comparison.mechanisms]
    wide = residency_picture(labels, bands, Canvas("residency-wide", 1000, 400))
    narrow = residency_picture(labels, bands, Canvas("residency-narrow", 380, 340))
    if wide is None or narrow is None:
        return element("section", [title, element("p", f"{NOT_MEASURED}.", class_="none")])
    alternative = "Curves of host resident memory. " + " ".join(
        f"{label}: {size_text(max(band.high))} at most, {size_text(band.middle[-1])} at the end."
        for label, band in zip(labels, bands, strict=True)
        if band is not None
    )
    caption = (
        "Each line is the median of the runs under one mechanism, in a band from the least to the "
        "most of them. Lower is better: what a curve loses has come back to the host."
    )
    return element("section", [title, sections.picture(wide, narrow, alternative, caption)])


def _frontier(comparison: Comparison) -> Markup:
    title = element("h2", "The frontier: what it holds against what it costs")
    wide = frontier_picture(comparison, Canvas("frontier-wide", 1000, 400))
    narrow = frontier_picture(comparison, Canvas("frontier-narrow", 380, 340))
    found = frontier(comparison)
    if wide is None or narrow is None or found.metric is None:
        return element("section", [title, element("p", f"{NOT_MEASURED}.", class_="none")])
    labels = [mechanism.label for mechanism in comparison.mechanisms]
    price = comparison.figure(found.metric)
    best = listed([labels[number] for number in found.best])
    missing = [label for label, f in zip(labels, price.mechanisms, strict=True) if f.mean is None]
    is_cost = found.metric == COST
    drawn = (*price.mechanisms, *comparison.figure(FOOTPRINT).mechanisms)
    known = any(one.half_width for one in drawn)
    own = " with their own 95 % intervals" if known else ""
    caption = (
        f"{'CPU time per GiB returned' if is_cost else 'Operations per second'} over footprint: "
        f"better is to the left and {'down' if is_cost else 'up'}. Large marks are means"
        f"{own}, small ones single runs. No other mechanism has a better mean "
        f"in both than {best} (filled, joined by a line)."
    )
    if not is_cost:
        caption += " CPU time was not measured. The scale does not begin at 0."
    if missing:
        caption += f" A vertical line has no price: under {listed(missing)} nothing came back."
    alternative = "Footprint and price. " + " ".join(
        f"{label}: {value_text(FOOTPRINT, x.mean)} GiB minutes, {value_text(price.metric, y.mean)}."
        for label, x, y in zip(
            labels, comparison.figure(FOOTPRINT).mechanisms, price.mechanisms, strict=True
        )
    )
    return element("section", [title, sections.picture(wide, narrow, alternative, caption)])


def _overview(comparison: Comparison) -> Markup:
    figures = [comparison.figure(metric) for metric in DECISIVE]
    names = ["Mechanism", *(figure_label(figure.metric) for figure in figures), "violations"]
    head = element("tr", [element("th", name, scope="col") for name in names])
    rows = []
    for number, mechanism in enumerate(comparison.mechanisms):
        name = (
            element("a", mechanism.label, href=f"#mechanism-{number}")
            if number
            else joined(f"{mechanism.label} (baseline)")
        )
        cells = [
            _range_cell(figure, figure.mechanisms[number])
            if figure.mechanisms[number].difference is None
            else _difference_cell(figure, figure.mechanisms[number].difference)
            for figure in figures
        ]
        total = sum(filter(None, mechanism.violations))
        known = any(count is not None for count in mechanism.violations)
        violations = element(
            "td", count_text(total) if known else NOT_MEASURED, class_="bad" if total else None
        )
        rows.append(element("tr", [element("th", name, scope="row"), *cells, violations]))
    table = sections.scrolled_table(head, rows, "All mechanisms")
    base = comparison.baseline.label
    note = (
        f"Differences to {base}; of {base} itself, and where it has none, the least and the most."
    )
    body = [element("div", table, class_="wrapped"), element("p", note, class_="note")]
    return element("section", [element("h2", "Side by side"), *body])


def _range_cell(figure: FigureOfAll, found: FigureOfMechanism) -> Markup:
    low, high = (_tight(value_text(figure.metric, end)) for end in (found.low, found.high))
    words = NOT_MEASURED if found.mean is None else low if low == high else f"{low} to {high}"
    return element(
        "td",
        words,
        title=_values_text(found),
        class_="none" if found.mean is None else None,
    )


def _tight(words: str) -> str:
    """Words that stay on one line: a number with its unit, a difference with its interval."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _values_text(found: FigureOfMechanism) -> str:
    values = ", ".join(exact_text(value, "") for value in found.values)
    return f"mean {exact_text(found.mean, '')}; runs: {values}"


def _difference_cell(figure: FigureOfAll, found: FoundDifference | None) -> Markup:
    if found is None:
        return element("td", "not in both", class_="none")
    kind = {True: "better", False: "worse", None: "same"}[found.is_better]
    difference = difference_text(figure.metric, found)
    words = verdict_text(figure.metric, found).replace(difference, _tight(difference))
    words = f"{words} {quality_text(found)}".strip()
    low, high = (found.least, found.most) if found.low is None else (found.low, found.high)
    exact = f"{exact_text(low, '')} to {exact_text(high, '')}"
    return element("td", words, class_=kind, title=exact)


def _left_behind(comparison: Comparison) -> Markup:
    header, *rows = left_behind(comparison)
    names = ["Mechanism", *header[1:]]
    head = element("tr", [element("th", name, scope="col") for name in names])
    body = [
        element("tr", [element("th", label, scope="row"), *(element("td", c) for c in cells)])
        for label, *cells in rows
    ]
    note = (
        "Means over the runs. Resident: what the guest still holds of the host's memory. The other "
        "columns: what is free in the guest and was not returned, by cause; free memory that was "
        "never touched is among it, without being resident."
    )
    table = sections.scrolled_table(head, body, "At the end")
    title = element("h2", "At the end: resident, and free but not returned")
    return element("section", [title, table, element("p", note, class_="note")])


def _published_table(table: PublishedTable) -> Markup:
    head = element(
        "tr", [element("th", n, scope="col") for n in ("", "Published", *table.mechanisms)]
    )
    body = [
        element(
            "tr",
            [
                element("th", figure.published.what, scope="row"),
                element("td", figure_text(figure.published)),
                *(element("td", cell) for cell in cells),
            ],
        )
        for figure, cells in table.rows
    ]
    title = f"Published differences to {table.against}, and those measured here"
    note = f"Published by {'; '.join(table.sources)}. In brackets: no difference detected."
    return element(
        "section",
        [
            element("h2", title),
            sections.scrolled_table(head, body, title),
            element("p", note, class_="note"),
        ],
        class_="wrapped",
    )


def _tables(comparison: Comparison) -> Markup:
    parts = [
        _mechanism_table(comparison, number) for number in range(1, len(comparison.mechanisms))
    ]
    own = [
        element("li", [element("strong", label), f": {figures}"])
        for label, figures in own_figures(comparison)
    ]
    if own:
        title = element("h3", "What mechanisms count of their own, means of the runs")
        parts.append(element("div", [title, element("ul", own)], class_="mechanism"))
    missing = unmeasured(comparison)
    if missing:
        parts.append(element("p", f"Not measured: {'; '.join(missing)}.", class_="note"))
    return element("section", [element("h2", "All figures"), *parts])


def _mechanism_table(comparison: Comparison, number: int) -> Markup:
    mechanism = comparison.mechanisms[number]
    names = ("Figure", comparison.baseline.label, "here", "difference")
    head = element("tr", [element("th", name, scope="col") for name in names])
    rows = [
        element(
            "tr",
            [
                element("th", figure_label(figure.metric), scope="row"),
                *(
                    element("td", _tight(value_text(figure.metric, f.mean)), title=_values_text(f))
                    for f in (figure.mechanisms[0], figure.mechanisms[number])
                ),
                _difference_cell(figure, found),
            ],
        )
        for _, group in groups(comparison, number)
        for figure, found in group
    ]
    title = f"{mechanism.label} against {comparison.baseline.label}"
    failure = ""
    if mechanism.failure is not None:
        failure = element(
            "p", f"Left out, because a run failed: {mechanism.failure}", class_="alarm"
        )
    return element(
        "div",
        [element("h3", title), failure, sections.scrolled_table(head, rows, title)],
        class_="mechanism wrapped",
        id=f"mechanism-{number}",
    )


def _method(comparison: Comparison) -> Markup:
    paragraphs = [element("p", sentence) for sentence in method_text(comparison)]
    return element("section", [element("h2", "How to read it"), *paragraphs])


def _runs(comparison: Comparison) -> Markup:
    head = element(
        "tr", [element("th", name, scope="col") for name in ("Repeat", "seed", "order of the runs")]
    )
    rows = []
    for repeat, seed in enumerate(comparison.seeds, start=1):
        items = []
        for run in comparison.runs:
            if run.repeat != repeat:
                continue
            file = "scenario.toml" if run.summary is None else "summary.json"
            link = element("a", run.mechanism, href=f"{quote(run.folder)}/{file}")
            items.append(element("li", [link, f" failed: {run.failure}" if run.failure else ""]))
        cells = [element("td", str(seed)), element("td", element("ol", items))]
        rows.append(element("tr", [element("th", str(repeat), scope="row"), *cells]))
    table = sections.scrolled_table(head, rows, "Order of the runs")
    return element(
        "section",
        [element("h2", "Order and seeds"), element("div", table, class_="orders")],
    )


def _mail(comparison: Comparison) -> Markup:
    text = element("pre", element("code", mail_text(comparison)), class_="mail", tabindex="0")
    pieces = [element("h2", "For a mail"), text]
    argv = comparison.manifest.get("argv")
    if argv:
        again = element("pre", element("code", "\n".join(command_lines(argv, 100))))
        pieces += [element("h2", "Run it again"), again]
    link = element("a", "comparison.json", href="comparison.json")
    pieces.append(element("p", [link, " has every single value."], class_="note"))
    return element("section", pieces)
