"""How many guests fit a host, in words and tables; the text and the page say the same from here."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

from emulator.capacity.capacities import CapacityOf
from emulator.capacity.resample import Capacity, Fit, Range
from emulator.report.wording import count_text, counted, duration_text, listed, size_text

WIDTH: Final = 72
_JUMP: Final = 0.1  # Of the peak: a period that ends so far from its beginning is named.

HEADS: Final = (
    ("", "swapping", "guests", "of the time", "of periods"),
    ("", "guests", "mean", "p99", "p99.9", "max"),
)
TITLES: Final = (
    "How many fit, and how often their sum exceeds the host",
    "The sum of so many guests' memory",
)
_WIDTHS: Final = ((25, 9, 14, 13, 11), (22, 8, 10, 10, 11, 11))


def found_in(capacities: Sequence[CapacityOf]) -> list[tuple[str, Capacity]]:
    """Those that could be answered."""
    return [(one.label, one.found) for one in capacities if one.found is not None]


def probability_text(probability: float) -> str:
    """Of two digits, in per cent: `0.1 %`, `0.083 %`, `0 %`."""
    return f"{100 * probability:.2g} %"


def title_text(capacities: Sequence[CapacityOf]) -> str:
    """What is answered."""
    hosts = {found.host_bytes for _, found in found_in(capacities)}
    host = f"a host of {size_text(hosts.pop())}" if len(hosts) == 1 else "the host"
    return f"How many such guests fit {host}"


def answers(capacities: Sequence[CapacityOf]) -> list[str]:
    """A sentence for each mechanism."""
    sentences = []
    for one in capacities:
        found = one.found
        if found is None:
            sentences.append(f"{one.label}: not answered: {one.why}.")
            continue
        first, *others = found.fits
        fitting = listed(
            [
                f"{range_text(first.fits)} with less than "
                f"{probability_text(first.probability)} of the time swapping",
                *(
                    f"{range_text(f.fits)} with less than {probability_text(f.probability)}"
                    for f in others
                ),
            ]
        )
        sentences.append(
            f"{one.label}: {fitting}; sized by one guest's peak "
            f"({size_text(found.guest_peak_bytes)}) {count_text(found.guests_by_peak)}, by its "
            f"mean ({size_text(found.guest_mean_bytes)}) {count_text(found.guests_by_mean)}."
        )
    return sentences


def fit_rows(capacities: Sequence[CapacityOf]) -> list[list[str]]:
    """A row for each mechanism and probability, under the first of `HEADS`."""
    return [
        [
            label,
            f"< {probability_text(fit.probability)}",
            range_text(fit.fits),
            probability_text(fit.exceeding),
            probability_text(fit.any_excess),
        ]
        for label, fit in _fits(capacities)
    ]


def sum_rows(capacities: Sequence[CapacityOf]) -> list[list[str]]:
    """The sums at the numbers that fit, under the second of `HEADS`."""
    rows = []
    for label, fit in _fits(capacities):
        held = fit.sum_bytes
        if held is not None:
            sizes = (held.mean, held.p99, held.p999, held.max)
            rows.append([label, count_text(fit.fits.guests), *map(size_text, sizes)])
    return rows


def _fits(capacities: Sequence[CapacityOf]) -> Iterator[tuple[str, Fit]]:
    for label, found in found_in(capacities):
        yield from ((label, fit) for fit in found.fits)


def range_text(found: Range) -> str:
    """The number, and its interval where that is more than the number."""
    if found.low == found.high:
        return count_text(found.guests)
    return f"{count_text(found.guests)} ({count_text(found.low)}-{count_text(found.high)})"


def notes(capacities: Sequence[CapacityOf]) -> list[str]:
    """How it was found and how sure it is, in sentences."""
    known = found_in(capacities)
    if not known:
        return []
    first = known[0][1]
    recordings = sorted({found.recordings for _, found in known})
    runs = {found.recordings if found.runs is None else found.runs for _, found in known}
    together = runs != set(recordings)
    many = listed([counted(number, "recording") for number in recordings])
    sentences = [
        f"Each guest is one of {many} of {_span_text([f.period_s for _, f in known])}, at a phase "
        "of its own; "
        f"{count_text(first.resamples)} resamples, seed {first.seed}. Of periods: how many have "
        "any excess at all."
    ]
    drawn = "runs, each with all its guests," if together else "recordings"
    sentences.append(
        f"In brackets: the 95 % interval, were as many of the same {drawn} drawn again. It says "
        "nothing of guests that do the same at the same time."
        if min(runs) > 1
        else f"From one {'run' if together else 'recording'} nobody knows how others would do: in "
        "brackets is the 95 % interval of the resampling alone."
    )
    least = min(fit.probability for fit in first.fits)
    tails = [fit for _, found in known for fit in found.fits if fit.probability == least]
    needed = [fit.resamples_needed for fit in tails if fit.resamples_needed is not None]
    errors = [fit.relative_error for fit in tails if fit.relative_error is not None]
    if needed:
        sentences.append(
            f"What is below {probability_text(least)} is known to "
            f"{100 * max(errors):.2g} % of itself (standard error); {count_text(max(needed))} "
            f"resamples would make that 10 %."
        )
    jumping = [f"{label} ({100 * f.jump:.0f} %)" for label, f in known if f.jump > _JUMP]
    if jumping:
        sentences.append(
            f"The end of a recording lies far from its beginning, of its peak: {listed(jumping)}. "
            "Such a guest is taken as one that goes back to where it began in every period"
            + ("." if first.after_s else "; to leave its start out, give `after`.")
        )
    return sentences


def _span_text(spans_s: Sequence[float]) -> str:
    low, high = duration_text(min(spans_s)), duration_text(max(spans_s))
    return low if low == high else f"{low} to {high}"


def capacity_lines(capacities: Sequence[CapacityOf], width: int = WIDTH) -> list[tuple[str, str]]:
    """Lines of text with their styles, of at most `width` columns (72 or more)."""
    lines = [(title_text(capacities), "bold")]
    for sentence in answers(capacities):
        lines += [(line, "") for line in _wrapped(f"- {sentence}", width, "  ")]
    tables = (fit_rows(capacities), sum_rows(capacities))
    for title, head, rows, widths in zip(TITLES, HEADS, tables, _WIDTHS, strict=True):
        if rows:
            lines += [("", ""), (f" {title}", "dim"), (_line(head, widths), "dim")]
            lines += [(_line(row, widths), "") for row in _without_repeats(rows)]
    for sentence in notes(capacities):
        lines += [(line, "dim") for line in _wrapped(sentence, width)]
    return lines


def _without_repeats(rows: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    before = ""
    for row in rows:
        yield ["" if row[0] == before else row[0], *row[1:]]
        before = row[0]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    room = widths[0] - 3
    name = cells[0]
    if cell_len(name) > room:
        name = set_cell_size(name, room - 2).rstrip() + ".."
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"  {set_cell_size(name, room)} {''.join(rest)}".rstrip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def summary_text(capacities: Sequence[CapacityOf]) -> str:
    """For whoever cannot see the picture."""
    return " ".join([f"{counted(len(capacities), 'curve')}.", *answers(capacities)])
