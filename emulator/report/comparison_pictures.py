"""The two pictures of a comparison: residency over time, and the frontier of price and gain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from emulator.compare.comparison import Comparison
from emulator.compare.measured import FigureOfMechanism
from emulator.report.comparison_curves import Band
from emulator.report.pictures import (
    Canvas,
    as_svg,
    bare_axes,
    legend,
    run_look,
    size_unit,
    style,
    time_axes,
    unit_above,
    with_legend,
)

FOOTPRINT: Final = "host.footprint_gib_min"
COST: Final = "cost.cpu_s_per_gib_returned"
OPERATIONS: Final = "vcpus.operations_per_s"

_MARKERS: Final = "osD^vPX*"
_LABEL_MAX: Final = 40
_SPAN_MIN: Final = 0.1  # Of the operations per second: closer is drawn as close.


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """What is put against the footprint, and on which mechanisms no other improves in both.

    `metric`: the CPU time per GiB returned, or operations per second where that is not measured;
    None if neither is.  `best`: numbers of mechanisms, by footprint; means are compared, and a
    price is better if it is so by more than the noise floor.
    """

    metric: str | None
    best: list[int]


def frontier(comparison: Comparison) -> Frontier:
    """The frontier of a comparison."""
    footprints = [found.mean for found in comparison.figure(FOOTPRINT).mechanisms]
    for metric, sign in ((COST, 1), (OPERATIONS, -1)):
        floor = comparison.figure(metric).floor_fraction
        prices = [found.mean for found in comparison.figure(metric).mechanisms]
        points = [
            (footprint, sign * price, number)
            for number, (footprint, price) in enumerate(zip(footprints, prices, strict=True))
            if footprint is not None and price is not None
        ]
        if points:
            best: list[int] = []
            lowest = 0.0
            for _, price, number in sorted(points):
                if price < lowest - floor * abs(lowest) or not best:
                    best.append(number)
                    lowest = price
            return Frontier(metric=metric, best=best)
    return Frontier(metric=None, best=[])


def residency_picture(
    labels: Sequence[str], bands: Sequence[Band | None], canvas: Canvas
) -> str | None:
    """Host resident memory of all mechanisms: the median of the runs, in a band of all runs.

    Returns SVG text, or None without a sample.
    """
    known = [band for band in bands if band is not None]
    if not known:
        return None
    high, end_s = max(max(band.high) for band in known), max(band.times_s[-1] for band in known)
    canvas = with_legend(canvas, [_cut(label) for label in labels])
    with style():
        figure, axes = time_axes(canvas, high, 0.0, end_s, headroom=1.06)
        divisor, _ = size_unit(high)
        lines: list[Any] = []
        for number, (label, band) in enumerate(zip(labels, bands, strict=True)):
            if band is None:
                continue
            colour, dashes = run_look(number)
            low, middle, top = (
                [value / divisor for value in values]
                for values in (band.low, band.middle, band.high)
            )
            axes.fill_between(band.times_s, low, top, color=colour, alpha=0.16, linewidth=0)
            lines += axes.plot(
                band.times_s,
                middle,
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                label=_cut(label),
            )
        legend(figure, lines, canvas)
        return as_svg(figure, canvas)


def frontier_picture(comparison: Comparison, canvas: Canvas) -> str | None:
    """Footprint to the right, price upwards: means with their 95 % intervals and single runs.

    A mechanism without a price (nothing came back) is a vertical line at its footprint.
    Returns SVG text, or None where neither price is measured.
    """
    found = frontier(comparison)
    if found.metric is None:
        return None
    footprint, price = comparison.figure(FOOTPRINT), comparison.figure(found.metric)
    labels = [_cut(mechanism.label) for mechanism in comparison.mechanisms]
    canvas = with_legend(canvas, labels)
    with style():
        figure, axes = bare_axes(canvas)
        drawn: list[Any] = []
        corners: dict[int, tuple[float, float]] = {}
        for number, (x, y) in enumerate(zip(footprint.mechanisms, price.mechanisms, strict=True)):
            if x.mean is None:
                continue
            colour, dashes = run_look(number)
            if y.mean is None:
                drawn.append(
                    axes.axvline(
                        x.mean, color=colour, linestyle=dashes, linewidth=1.5, label=labels[number]
                    )
                )
                continue
            corners[number] = (x.mean, y.mean)
            drawn.append(_point(axes, x, y, number, labels[number], number in found.best))
        xs, ys = zip(*(corners[number] for number in found.best), strict=True)
        axes.plot(xs, ys, color="#020202", linewidth=0.9, linestyle=(0, (2, 3)), zorder=2)
        axes.set_xlim(left=0, right=axes.get_xlim()[1] * 1.02)
        low, high = axes.get_ylim()
        if found.metric == COST:
            axes.set_ylim(bottom=0, top=high * 1.05)
        else:  # Differences of a few per cent matter, and are to be seen.
            margin = max(high - low, _SPAN_MIN * max(high, 1e-9))
            axes.set_ylim(max(0.0, (low + high - margin) / 2), (low + high + margin) / 2)
        axes.set_xlabel("footprint, GiB minutes")
        unit = "s / GiB" if found.metric == COST else "per s"
        unit_above(axes, unit)
        axes.yaxis.set_major_formatter(_short)
        legend(figure, drawn, canvas)
        return as_svg(figure, canvas)


def _point(
    axes: Any, x: FigureOfMechanism, y: FigureOfMechanism, number: int, label: str, is_best: bool
) -> Any:
    """One mechanism: its runs small, its mean large, filled if it is on the frontier."""
    colour, _ = run_look(number)
    pairs = [(a, b) for a, b in zip(x.values, y.values, strict=True) if a is not None]
    singles = [(a, b) for a, b in pairs if b is not None]
    axes.plot(*zip(*singles, strict=True), ".", color=colour, markersize=3, alpha=0.7, zorder=3)
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=x.half_width or None,
        yerr=y.half_width or None,
        color=colour,
        linewidth=1.1,
        capsize=2.5,
        zorder=3,
    )
    (mean,) = axes.plot(
        [x.mean],
        [y.mean],
        linestyle="none",
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=9,
        color=colour,
        markerfacecolor=colour if is_best else "none",
        markeredgewidth=1.6,
        label=label,
        zorder=4,
    )
    return mean


def _short(value: float, _: float) -> str:
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"


def _cut(label: str) -> str:
    return label if len(label) <= _LABEL_MAX else f"{label[: _LABEL_MAX - 2]}.."
