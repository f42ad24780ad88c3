"""Several guests in pictures: what they hold together against the host's memory, and each alone.

Guests are told apart by where they lie: areas on top of each other in their order, the first at the
bottom, and small pictures with their numbers, all to the same scale.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emulator.report.pictures import (
    Canvas,
    as_svg,
    legend,
    run_look,
    size_unit,
    style,
    time_axes,
    time_unit,
)
from emulator.report.wording import size_text
from emulator.summary import SeriesRow

_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_POINTS_MAX: Final = 300
_NAMED_MAX: Final = 8  # More guests than there are colours are not named in a legend.
_ROW_PX: Final = 96
#: Besides what is resident: column, colour and dashes.
_OTHERS: Final = (
    ("balloon_bytes", ("#050504", (0, (7, 2, 1.5, 2)))),
    ("swapped_bytes", ("#050507", "-")),
)
_COLUMNS: Final = {True: 4, False: 2}  # Of small pictures, on a wide canvas or not.


def stacked_guests(
    guests: Sequence[Sequence[SeriesRow]], limit_bytes: int | None, canvas: Canvas
) -> str | None:
    """What all guests have resident, on top of each other; the host's memory as a line.

    Returns SVG text, or None without a sample.
    """
    times, sizes = _laid(guests, "resident_bytes")
    if not len(times):
        return None
    tops = np.cumsum(sizes, axis=0)
    high = max(float(tops[-1].max()), limit_bytes or 0)
    with style():
        figure, axes = time_axes(canvas, high, min(0.0, times[0]), times[-1], headroom=1.08)
        divisor, _ = size_unit(high)
        drawn: list[Any] = []
        below = np.zeros(len(times))
        for number, top in enumerate(tops / divisor):
            colour, dashes = run_look(number)
            fill = axes.fill_between(times, below, top, color=colour, alpha=0.28, linewidth=0)
            axes.plot(times, top, color=colour, linestyle=dashes, linewidth=1.2)
            drawn.append(fill)
            below = top
        if len(drawn) > _NAMED_MAX:
            drawn = []
        if limit_bytes is not None:
            limit = axes.axhline(limit_bytes / divisor, color=_INK, linewidth=1.4)
            limit.set_linestyle((0, (6, 3)))
            drawn.append(limit)
        for one, label in zip(drawn, stack_labels(len(guests), limit_bytes), strict=True):
            one.set_label(label)
        legend(figure, drawn, canvas)
        return as_svg(figure, canvas)


def stack_labels(guests: int, limit_bytes: int | None) -> list[str]:
    """What the legend of the stacked guests says."""
    labels = [f"guest {number}" for number in range(guests)] if guests <= _NAMED_MAX else []
    return labels if limit_bytes is None else [*labels, f"host's memory, {size_text(limit_bytes)}"]


def each_guest(guests: Sequence[Sequence[SeriesRow]], canvas: Canvas) -> str | None:
    """A small picture a guest: what it has resident, filled, and its balloon and what is swapped of
    it, where there is such.  The canvas is made as high as they need.

    Returns SVG text, or None without a sample.
    """
    times, resident = _laid(guests, "resident_bytes")
    if not len(times):
        return None
    columns = min(_COLUMNS[canvas.is_wide], len(guests))
    rows = -(-len(guests) // columns)
    canvas = Canvas(canvas.name, canvas.width_px, 34 + _ROW_PX * rows, canvas.above_px)
    others = [(_laid(guests, key)[1], look) for key, look in _OTHERS]
    drawn = [(sizes, look) for sizes, look in others if sizes.size and sizes.max() > 0]
    high = max(float(sizes.max()) for sizes in (resident, *(sizes for sizes, _ in drawn)))
    divisor, unit = size_unit(high)
    scale, word = time_unit(times[-1])
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(canvas.width_px / 72, canvas.height_px / 72), dpi=72)
        figure.patch.set_visible(False)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        figure.subplots_adjust(
            left=48 / canvas.width_px,
            right=1 - 12 / canvas.width_px,
            top=1 - 18 / canvas.height_px,
            bottom=34 / canvas.height_px,
            wspace=0.08,
            hspace=0.34,
        )
        for number, axes in enumerate(grid.flat):
            if number >= len(guests):
                axes.set_visible(False)
                continue
            _bare(axes, high / divisor, times[-1] / scale)
            axes.fill_between(times / scale, resident[number] / divisor, color="#050501", alpha=0.3)
            axes.plot(times / scale, resident[number] / divisor, color="#050501", linewidth=1.2)
            for sizes, (colour, dashes) in drawn:
                axes.plot(
                    times / scale,
                    sizes[number] / divisor,
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.2,
                )
            last_row = number >= len(guests) - columns
            axes.tick_params(labelbottom=last_row, labelleft=number % columns == 0, length=2)
            named = f"guest {number}" + (f", {unit} over {word}" if number == 0 else "")
            axes.set_title(named, loc="left", fontsize=11, color=_MUTED, pad=3)
        return as_svg(figure, canvas)


def _bare(axes: Any, high: float, end: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.patch.set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(0, max(high * 1.08, 1e-9))
    axes.set_xlim(0, end if end > 0 else 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _laid(
    guests: Sequence[Sequence[SeriesRow]], key: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Common times, and a column of each guest at them: f8[guests][times]; both empty where a guest
    has none."""
    curves = []
    for rows in guests:
        known = [(row.time_s, getattr(row, key)) for row in rows if getattr(row, key) is not None]
        if not known:
            return np.zeros(0), np.zeros((0, 0))
        curves.append(np.array(known, np.float64).T)
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    ends = max(times[-1] for times, _ in curves)
    times = np.linspace(0.0, ends, min(_POINTS_MAX, max(len(times) for times, _ in curves)))
    return times, np.array([np.interp(times, *curve) for curve in curves])
