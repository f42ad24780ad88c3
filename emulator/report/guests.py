"""The guests of one host beside each other: words and figures of each, and one picture of all."""

from collections.abc import Sequence

from emulator.report import sections
from emulator.report.markup import Markup, element
from emulator.report.pictures import Canvas, residency_of_runs
from emulator.report.tables import Figure, size_figure
from emulator.report.wording import count_text, duration_text, exact_text
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
    summary: Summary, guests: Sequence[Sequence[SeriesRow]], name: str, heading: str
) -> Markup:
    """All guests in one picture and one table; empty where there is one only.

    guests: the samples of each.
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
    return element("section", [element(heading, "Guests"), *_picture(guests, name), table])


def _picture(guests: Sequence[Sequence[SeriesRow]], name: str) -> list[Markup]:
    curves = [(f"guest {index}", rows) for index, rows in enumerate(guests)]
    if not curves:
        return []
    wide = residency_of_runs(curves, Canvas(f"{name}-guests-wide", 1000, 360))
    narrow = residency_of_runs(curves, Canvas(f"{name}-guests-narrow", 380, 340))
    if wide is None or narrow is None:
        return []
    caption = "What each guest has resident of the host's memory."
    return [sections.picture(wide, narrow, f"Curves, one a guest. {caption}", caption)]
