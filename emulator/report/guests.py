"""The guests of one host beside each other: words and figures of each, and pictures of all."""

from collections.abc import Sequence

from emulator.report import sections
from emulator.report.guests_pictures import each_guest, stack_labels, stacked_guests
from emulator.report.markup import Markup, element
from emulator.report.pictures import Canvas, with_legend
from emulator.report.tables import Figure, size_figure
from emulator.report.wording import count_text, duration_text, exact_text, size_text
from emulator.summary import SeriesRow, Summary


def guest_figures(guest: Summary) -> tuple[Figure, ...]:
    """What is shown of each guest."""
    host = guest.host
    start_s = guest.phases[0].start_s if guest.phases else None
    return (
        Figure("begins", duration_text(start_s), exact_text(start_s, "seconds")),
        size_figure("peak", host.resident_bytes_peak),
        size_figure("end", host.resident_bytes_end),
        size_figure("returned", guest.hinting.returned_bytes),
        size_figure("balloon", guest.balloon.balloon_bytes_end),
        Figure(
            "operations",
            count_text(guest.vcpus.operations),
            exact_text(guest.vcpus.operations, "operations"),
        ),
    )


def guest_rows(summary: Summary) -> list[list[str]]:
    """A heading, and a row a guest; none where there is one only."""
    if not summary.guests:
        return []
    labels = [figure.label for figure in guest_figures(summary.guests[0])]
    rows = [
        [f"{index}", *(figure.text for figure in guest_figures(guest))]
        for index, guest in enumerate(summary.guests)
    ]
    return [["Guest", *labels], *rows]


def guests_section(
    summary: Summary,
    guests: Sequence[Sequence[SeriesRow]],
    limit_bytes: int | None,
    name: str,
    heading: str,
) -> Markup:
    """All guests together, each alone, and a table; empty where there is one only.

    guests: the samples of each;  limit_bytes: what the host has for them; None: it is not said.
    """
    if not summary.guests:
        return Markup()
    labels = [figure.label for figure in guest_figures(summary.guests[0])]
    head = element("tr", [element("th", label, scope="col") for label in ("Guest", *labels)])
    rows = [
        element(
            "tr",
            [
                element("th", f"guest {index}", scope="row"),
                *(sections.figure_cell(figure) for figure in guest_figures(guest)),
            ],
        )
        for index, guest in enumerate(summary.guests)
    ]
    table = sections.scrolled_table(head, rows, "Guests")
    return element(
        "section", [element(heading, "Guests"), *_pictures(guests, limit_bytes, name), table]
    )


def _pictures(
    guests: Sequence[Sequence[SeriesRow]], limit_bytes: int | None, name: str
) -> list[Markup]:
    stacks = [
        stacked_guests(guests, limit_bytes, canvas)
        for canvas in _canvases(f"{name}-guests", len(guests), limit_bytes)
    ]
    each = [
        each_guest(guests, Canvas(f"{name}-each-wide", 1000, 0)),
        each_guest(guests, Canvas(f"{name}-each-narrow", 380, 0)),
    ]
    together = "What all guests have resident of the host's memory, the first at the bottom."
    if limit_bytes is not None:
        together += f" The dashed line is what the host has for them, {size_text(limit_bytes)}."
    alone = "What each has resident, filled, and all to one scale."
    if any(row.balloon_bytes for rows in guests for row in rows):
        alone += " The dashes and dots are what is in its balloon."
    if any(row.swapped_bytes for rows in guests for row in rows):
        alone += " The grey line is what the host has swapped out of it."
    found = []
    for (wide, narrow), caption in ((stacks, together), (each, alone)):
        if wide is not None and narrow is not None:
            found.append(sections.picture(wide, narrow, f"Curves over time. {caption}", caption))
    return found


def _canvases(name: str, guests: int, limit_bytes: int | None) -> list[Canvas]:
    """For the stacked guests, with room for their names."""
    labels = stack_labels(guests, limit_bytes)
    sizes = ((f"{name}-wide", 1000, 360), (f"{name}-narrow", 380, 340))
    return [with_legend(Canvas(*size), labels) for size in sizes]
