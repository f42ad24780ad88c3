"""How many guests fit a host, on a page: the picture of the probabilities, and the tables."""

from collections.abc import Sequence
from typing import Any, Final

from emulator.capacity.capacities import CapacityOf
from emulator.report import sections
from emulator.report.capacity_words import (
    HEADS,
    TITLES,
    answers,
    fit_rows,
    found_in,
    notes,
    probability_text,
    sum_rows,
    summary_text,
    title_text,
)
from emulator.report.markup import Markup, element
from emulator.report.pictures import (
    Canvas,
    as_svg,
    bare_axes,
    legend,
    run_look,
    style,
    unit_above,
    with_legend,
)

_MUTED: Final = "#020202"
_BELOW: Final = 10  # How far below the smallest probability asked for the picture reaches.


def capacity_section(capacities: Sequence[CapacityOf], name: str, heading: str) -> Markup:
    """Answer, picture and tables; empty without any.  `name` tells pictures of a page apart."""
    if not capacities:
        return Markup()
    pieces: list[Markup] = [
        element(heading, title_text(capacities)),
        element("ul", [element("li", sentence) for sentence in answers(capacities)]),
    ]
    wide = capacity_picture(capacities, Canvas(f"{name}-wide", 1000, 400))
    narrow = capacity_picture(capacities, Canvas(f"{name}-narrow", 380, 340))
    if wide is not None and narrow is not None:
        caption = (
            "The part of the time in which so many guests hold more than the host has. Where a "
            "curve crosses a dotted line, no more of them fit under that probability."
        )
        pieces.append(sections.picture(wide, narrow, summary_text(capacities), caption))
    tables = (fit_rows(capacities), sum_rows(capacities))
    for title, head, rows in zip(TITLES, HEADS, tables, strict=True):
        if rows:
            pieces += [element("h3", title), _table(head, rows, title)]
    pieces += [element("p", sentence, class_="note") for sentence in notes(capacities)]
    return element("section", pieces, class_="capacity")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> Markup:
    heads = element("tr", [element("th", cell or "Mechanism", scope="col") for cell in head])
    body = [
        element("tr", [element("th", row[0], scope="row"), *(element("td", c) for c in row[1:])])
        for row in rows
    ]
    return sections.scrolled_table(heads, body, name)


def capacity_picture(capacities: Sequence[CapacityOf], canvas: Canvas) -> str | None:
    """The probability of exceeding the host against the number of guests, a curve a mechanism.

    Returns SVG text, or None where no mechanism could be answered.
    """
    known = found_in(capacities)
    if not known:
        return None
    asked = sorted({fit.probability for _, found in known for fit in found.fits})
    floor = asked[0] / _BELOW
    labels = [label for label, _ in known]
    canvas = with_legend(canvas, labels)
    with style():
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        figure, axes = bare_axes(canvas)
        axes.set_yscale("log")
        lines: list[Any] = []
        firsts, lasts = [], []
        for number, (label, found) in enumerate(known):
            colour, dashes = run_look(number)
            # From the last number below the picture on; what is never exceeded lies below it, too.
            first = max(0, sum(p < floor for p in found.exceeding) - 1)
            guests = range(first + 1, len(found.exceeding) + 1)
            heights = [max(p, floor / _BELOW) for p in found.exceeding[first:]]
            firsts.append(guests[0])
            lasts.append(guests[-1])
            lines += axes.plot(
                list(guests),
                heights,
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                marker="o",
                markersize=3.5,
                label=label,
            )
        axes.set_ylim(floor, 1.0)
        axes.set_xlim(max(0, min(firsts) - 1), max(lasts) + 1)
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{100 * p:g}"))
        axes.xaxis.set_major_locator(
            MaxNLocator(9 if canvas.is_wide else 5, integer=True, steps=[1, 2, 5, 10])
        )
        for probability in asked:
            axes.axhline(probability, color=_MUTED, linewidth=1.0, linestyle=(0, (1, 3)))
            axes.annotate(
                probability_text(probability),
                (1, probability),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color=_MUTED,
            )
        axes.set_xlabel("guests")
        unit_above(axes, "%")
        legend(figure, lines, canvas)
        return as_svg(figure, canvas)
