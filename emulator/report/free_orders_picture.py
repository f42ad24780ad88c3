"""The picture of free memory by the order of its blocks, and its place on the page of a run."""

from typing import Any, Final

from emulator.report.free_orders import FreeOrders, free_orders, which_survive
from emulator.report.markup import Markup, element
from emulator.report.pictures import Canvas, as_svg, legend, run_look, size_unit, style, time_axes
from emulator.report.sections import picture
from emulator.summary import Summary

_HATCHES: Final = ("", "///", "...", "\\\\\\", "xxx")  # Of the groups, the largest order first.


def free_orders_section(summary: Summary, name: str, heading: str) -> Markup:
    """The picture of free memory by order with its caption; empty without a count."""
    orders = free_orders(summary)
    if orders is None:
        return Markup()
    wide = free_orders_picture(orders, Canvas(f"{name}-orders-wide", 1000, 400))
    narrow = free_orders_picture(orders, Canvas(f"{name}-orders-narrow", 380, 340, 94))
    caption = (
        "Free memory, by the order of the blocks that it lies in, the largest at the bottom. What "
        "is above the two lowest areas is free, and in blocks too small to be reported at order 9."
    )
    alternative = f"Areas over time. {which_survive(summary)}"
    title = element(heading, "Free memory by order")
    return element("section", [title, picture(wide, narrow, alternative, caption)])


def free_orders_picture(orders: FreeOrders, canvas: Canvas) -> str:
    """Areas on top of each other, told apart by colour and hatching; SVG text."""
    groups = orders.groups()
    high = max(map(sum, zip(*(sizes for _, sizes in groups), strict=True)))
    with style():
        figure, axes = time_axes(canvas, high, 0.0, orders.times_s[-1], headroom=1.06)
        divisor, _ = size_unit(high)
        below = [0.0] * len(orders.times_s)
        areas: list[Any] = []
        for number, ((label, sizes), hatch) in enumerate(zip(groups, _HATCHES, strict=True)):
            top = [b + size / divisor for b, size in zip(below, sizes, strict=True)]
            colour, _ = run_look(number)
            fill = axes.fill_between(orders.times_s, below, top, color=colour, alpha=0.3)
            fill.set(linewidth=0, label=label)
            if hatch:
                fill = axes.fill_between(orders.times_s, below, top, facecolor="none", hatch=hatch)
                fill.set(edgecolor=colour, linewidth=0.8, label=label)
            areas.append(fill)
            below = top
        legend(figure, areas, canvas)
        return as_svg(figure, canvas)
