"""Curves over time as SVG that sits inside a page and follows its colours.

matplotlib draws, through its Figure and SVG backend only (no pyplot, no display), and is imported
when the first picture is drawn, because importing it takes longer than a short command.

A colour is drawn as a *marker colour* and afterwards replaced by a CSS variable, so that one
picture serves the light page, the dark page and print.  Text stays text.  Equal input gives equal
bytes: no date, and names inside the SVG are hashed with a fixed salt, one for each picture so that
several can stand on one page.
"""

import io
import logging
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from emulator.report.sparkline import thinned
from emulator.summary import Phase, SeriesRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Marker colour -> (CSS variable, colour where there is no style sheet).
_COLOURS: Final = {
    "#010101": ("ink", "#1b2430"),
    "#020202": ("muted", "#5b6776"),
    "#030303": ("grid", "#d9dee5"),
    "#040404": ("shade", "#eef1f5"),
    "#050501": ("resident", "#0072b2"),
    "#050502": ("free", "#b45f06"),
    "#050503": ("reported", "#8a3f8f"),
    "#050504": ("balloon", "#00795a"),
    "#050505": ("cache", "#8a6800"),
    "#050506": ("dirty", "#b3402f"),
    "#050507": ("swapped", "#5b6776"),
    "#060600": ("run-0", "#0072b2"),
    "#060601": ("run-1", "#b45f06"),
    "#060602": ("run-2", "#00795a"),
    "#060603": ("run-3", "#8a3f8f"),
    "#060604": ("run-4", "#9a7400"),
    "#060605": ("run-5", "#2f7fae"),
    "#060606": ("run-6", "#b3402f"),
    "#060607": ("run-7", "#5b6776"),
}
_INK, _MUTED, _GRID, _SHADE = "#010101", "#020202", "#030303", "#040404"
_RUN_STYLES: Final = (
    *("-", "--", "-.", ":"),
    *((0, (7, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (9, 2, 2, 2))),
)

#: Column of the series -> (label, marker colour, line style, line width).
_CURVES: Final[dict[str, tuple[str, str, Any, float]]] = {
    "resident_bytes": ("host resident", "#050501", "-", 1.8),
    "guest_free_bytes": ("guest free", "#050502", (0, (5, 2)), 1.6),
    "guest_reported_bytes": ("guest reported", "#050503", (0, (1.2, 1.6)), 2.0),
    "balloon_bytes": ("balloon", "#050504", (0, (7, 2, 1.5, 2)), 1.8),
    "balloon_target_bytes": ("its target", "#050504", (0, (1, 2)), 1.5),
    "page_cache_bytes": ("guest page cache", "#050505", (0, (9, 2)), 1.5),
    "dirty_bytes": ("of it dirty", "#050506", (0, (3, 1, 1, 1, 1, 1)), 1.6),
    "swapped_bytes": ("swapped out", "#050507", "-", 1.3),
}
_ALWAYS: Final = ("resident_bytes", "guest_free_bytes")  # Others are left out where they stay 0.
_POINTS_MAX: Final = 600
_SIZE_UNITS: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_FONT_PX: Final = 12.5
_CHARACTER_PX: Final = 7.4
_WIDE_PX: Final = 600  # From here on there is room for all.


@dataclass(frozen=True, slots=True)
class Canvas:
    """The size of a picture in CSS pixels; `name` tells pictures of one page apart.

    `above_px`: for the legend above the axes; None: for a few curves.
    """

    name: str
    width_px: int
    height_px: int
    above_px: int | None = None

    @property
    def is_wide(self) -> bool:
        """Whether it is drawn for a page, not for a phone."""
        return self.width_px >= _WIDE_PX


def drawn_columns(series: Sequence[SeriesRow]) -> list[str]:
    """The columns of which the time lapse has a curve: those measured, and not 0 all the time."""
    return [
        key
        for key in _CURVES
        if any(getattr(row, key) or (key in _ALWAYS and getattr(row, key) == 0) for row in series)
    ]


def time_lapse(series: Sequence[SeriesRow], phases: Sequence[Phase], canvas: Canvas) -> str | None:
    """Host resident memory, filled, beside what the guest has free, reported, in its balloon and in
    its page cache, over the phases.

    Returns SVG text, or `None` if no sample has any of them.
    """
    columns = {key: _known(series, key) for key in drawn_columns(series)}
    if not columns:
        return None
    high = max(max(values) for _, values in columns.values())
    end_s = max(times[-1] for times, _ in columns.values())
    canvas = with_legend(canvas, [_CURVES[key][0] for key in columns])
    with style():
        figure, axes = time_axes(canvas, high, min(0.0, series[0].time_s), end_s, headroom=1.16)
        divisor, _ = size_unit(high)
        lines: list[Line2D] = []
        for key, (times, values) in columns.items():
            label, colour, dashes, weight = _CURVES[key]
            kept = thinned(times, values, _POINTS_MAX)
            xs, ys = [times[i] for i in kept], [values[i] / divisor for i in kept]
            if key == "resident_bytes":
                axes.fill_between(xs, ys, color=colour, alpha=0.24, linewidth=0, zorder=2)
            lines += axes.plot(
                xs, ys, color=colour, linestyle=dashes, linewidth=weight, label=label, zorder=3
            )
        _shade_phases(axes, phases, canvas)
        legend(figure, lines, canvas)
        return as_svg(figure, canvas)


def residency_of_runs(
    runs: Sequence[tuple[str, Sequence[SeriesRow]]], canvas: Canvas
) -> str | None:
    """Host resident memory of several runs on common axes, told apart by colour and dashes.

    Returns SVG text, or `None` if no run has a sample of it.
    """
    curves = [(label, *_known(series, "resident_bytes")) for label, series in runs]
    if not any(times for _, times, _ in curves):
        return None
    high = max(max(values, default=0) for _, _, values in curves)
    end_s = max(times[-1] for _, times, _ in curves if times)
    canvas = with_legend(canvas, [label for label, _ in runs])
    with style():
        figure, axes = time_axes(canvas, high, 0.0, end_s, headroom=1.06)
        divisor, _ = size_unit(high)
        lines: list[Line2D] = []
        for number, (label, times, values) in enumerate(curves):
            kept = thinned(times, values, _POINTS_MAX)
            colour, dashes = run_look(number)
            lines += axes.plot(
                [times[i] for i in kept],
                [values[i] / divisor for i in kept],
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                label=label,
            )
        legend(figure, lines, canvas)
        return as_svg(figure, canvas)


def run_look(number: int) -> tuple[str, Any]:
    """The marker colour and the dashes of run `number` from 0; the first 64 all differ."""
    return f"#06060{number % 8}", _RUN_STYLES[(number + number // 8) % len(_RUN_STYLES)]


def _known(series: Sequence[SeriesRow], key: str) -> tuple[list[float], list[float]]:
    """Times and values of the samples in which `key` was measured."""
    pairs = [(row.time_s, getattr(row, key)) for row in series]
    known = [(time_s, float(value)) for time_s, value in pairs if value is not None]
    return [time_s for time_s, _ in known], [value for _, value in known]


def size_unit(high: float) -> tuple[float, str]:
    """The bytes and the name of the unit in which a size up to `high` bytes is drawn."""
    return next(((size, unit) for size, unit in _SIZE_UNITS if high >= size), (1, "B"))


def time_unit(end_s: float) -> tuple[float, str]:
    """The seconds and the name of the unit in which times up to `end_s` are drawn."""
    return (3600, "hours") if end_s > 7200 else (60, "minutes") if end_s > 300 else (1, "seconds")


def style() -> AbstractContextManager[None]:
    """The settings under which all pictures are drawn."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib

    settings: dict[str, Any] = {
        "font.family": ["DejaVu Sans"],  # Comes with matplotlib: the same measures everywhere.
        "font.size": _FONT_PX,
        "legend.fontsize": _FONT_PX,
        "svg.fonttype": "none",
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _MUTED,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "text.color": _INK,
        "text.parse_math": False,  # A phase may be called "$x".
        "path.simplify_threshold": 0.3,
    }
    context: AbstractContextManager[None] = matplotlib.rc_context(settings)
    return context


def time_axes(
    canvas: Canvas, high: float, start_s: float, end_s: float, headroom: float
) -> tuple["Figure", "Axes"]:
    """A figure with one pair of axes: sizes upwards from 0, time to the right."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = bare_axes(canvas)
    wide = canvas.is_wide
    divisor, unit = size_unit(high)
    scale, word = time_unit(end_s)
    axes.set_xlim(start_s, end_s if end_s > start_s else start_s + 1.0)
    axes.set_ylim(0, max(high / divisor * headroom, 1e-9))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ticks = MaxNLocator(9 if wide else 5, steps=[1, 2, 5, 10])
    limits = axes.get_xlim()
    values = [tick * scale for tick in ticks.tick_values(limits[0] / scale, limits[1] / scale)]
    axes.set_xticks([tick for tick in values if limits[0] <= tick <= limits[1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick / scale:g}"))
    axes.set_xlabel(word)
    unit_above(axes, unit)
    return figure, axes


def unit_above(axes: "Axes", unit: str) -> None:
    """The unit of the heights, clear of the highest number."""
    axes.annotate(
        unit,
        (0, 1),
        xytext=(-4, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=_MUTED,
    )


def bare_axes(canvas: Canvas) -> tuple["Figure", "Axes"]:
    """A figure with one pair of axes, a grid for heights, and room for a legend above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(canvas.width_px / 72, canvas.height_px / 72), dpi=72)
    figure.patch.set_visible(False)
    left, below, right = 48, 46, 12  # Margins in pixels.
    above = canvas.above_px or (52 if canvas.is_wide else 76)
    axes = figure.add_axes(
        (
            left / canvas.width_px,
            below / canvas.height_px,
            1 - (left + right) / canvas.width_px,
            1 - (below + above) / canvas.height_px,
        )
    )
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.7, zorder=1)
    axes.tick_params(length=3, width=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _shade_phases(axes: "Axes", phases: Sequence[Phase], canvas: Canvas) -> None:
    """Every other phase shaded, its number and, where there is room, its name above.

    Guests that begin at different times are in several phases at once: each is shown until the
    next one begins.
    """
    start_s, end_s = axes.get_xlim()
    px_per_s = axes.get_position().width * canvas.width_px / (end_s - start_s)
    following = [*(phase.start_s for phase in phases), end_s][1:] if phases else []
    for number, (phase, next_s) in enumerate(zip(phases, following, strict=True), start=1):
        left, right = max(phase.start_s, start_s), min(phase.end_s, next_s, end_s)
        if right <= left:
            continue
        if number % 2:
            axes.axvspan(left, right, color=_SHADE, linewidth=0, zorder=0)
        axes.axvline(left, color=_GRID, linewidth=0.7, zorder=1)
        room_px = (right - left) * px_per_s - 6
        name = f"{number} {phase.name}"
        label = name if len(name) * _CHARACTER_PX <= room_px else str(number)
        if len(label) * _CHARACTER_PX <= room_px:
            axes.text(
                left + 4 / px_per_s,
                0.985,
                label,
                transform=axes.get_xaxis_transform(),
                va="top",
                fontsize=_FONT_PX - 0.5,
                color=_MUTED,
                zorder=4,
            )


def legend(figure: "Figure", handles: Sequence[Any], canvas: Canvas) -> None:
    """What is labelled, above the axes, in as many columns as there is room for."""
    labels = [str(line.get_label()) for line in handles]
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=max(1, min(_legend_columns(labels, canvas), len(labels))),
        frameon=False,
        handlelength=2.6,
        borderaxespad=0.1,
        columnspacing=1.6,
        labelspacing=0.35,
    )


def with_legend(canvas: Canvas, labels: Sequence[str]) -> Canvas:
    """The canvas, taller if need be, with room for a legend of these labels."""
    rows = -(-len(labels) // _legend_columns(labels, canvas))
    above_px = 26 + 18 * rows  # The unit of the heights stands below the legend.
    if above_px <= (52 if canvas.is_wide else 76):
        return canvas
    return Canvas(canvas.name, canvas.width_px, canvas.height_px + above_px - 52, above_px)


def _legend_columns(labels: Sequence[str], canvas: Canvas) -> int:
    longest = max((len(label) for label in labels), default=1)
    return max(1, int((canvas.width_px - 20) / (longest * _CHARACTER_PX + 62)))


def as_svg(figure: "Figure", canvas: Canvas) -> str:
    """The figure as an `<svg>` element: its colours are variables, its size follows the page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": canvas.name}), warnings.catch_warnings():
        # A sign that our font lacks: text stays text, and the reader's fonts will have it.
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d{1,4}"', "", svg)  # Names nothing refers to.
    svg = re.sub(r"\s*<defs>\s*</defs>|\s*<defs/>", "", svg)
    svg = re.sub(
        r"<svg [^>]*>",
        f'<svg viewBox="0 0 {canvas.width_px} {canvas.height_px}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'aria-hidden="true">',
        svg,
        count=1,
    )
    svg = re.sub(r"\b(fill|stroke): (#0[1-6]0\d0\d)\b", _as_variable, svg)
    return svg.replace("'DejaVu Sans'", "system-ui, sans-serif").strip()


def _as_variable(match: re.Match[str]) -> str:
    variable, colour = _COLOURS[match[2]]
    return f"{match[1]}: var(--{variable}, {colour})"
