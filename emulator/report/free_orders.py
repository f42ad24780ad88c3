"""Free memory by the order of its blocks, over the time: for workloads that count it.

Such a workload has the figure `free_blocks`: `time_s` and `order_0` to `order_10`, lists of equal
length.  Orders are shown in groups; 9 and 10 alone, for they are what is reported by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from emulator.config.units import PAGE_BYTES
from emulator.report.wording import duration_text, listed, percent_text, size_text
from emulator.summary import Summary

_KEYS: Final = [f"order_{order}" for order in range(11)]
_GROUPS: Final = ((10, 10), (9, 9), (6, 8), (3, 5), (0, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeOrders:
    """Bytes that are free in the blocks of each order (0 to 10), at each of the times."""

    times_s: Sequence[float]
    by_order: Sequence[Sequence[int]]

    def groups(self) -> list[tuple[str, list[int]]]:
        """Label and bytes over the time of each group of orders, the largest first."""
        return [
            (
                f"order {low}" if low == high else f"orders {low} to {high}",
                [sum(sizes) for sizes in zip(*self.by_order[low : high + 1], strict=True)],
            )
            for low, high in _GROUPS
        ]


def free_orders(summary: Summary) -> FreeOrders | None:
    """What the workload counted; None if it did not, or if that is damaged."""
    counted = summary.workload.get("free_blocks")
    if not isinstance(counted, dict):
        return None
    columns = [_numbers(counted.get(key)) for key in ("time_s", *_KEYS)]
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        return None
    times, *blocks = columns
    return FreeOrders(
        times_s=times,
        by_order=[[n * PAGE_BYTES << order for n in b] for order, b in enumerate(blocks)],
    )


def _numbers(column: Any) -> list[Any]:
    """A list of numbers; empty if it is anything else."""
    is_one = isinstance(column, list) and all(isinstance(one, int | float) for one in column)
    return column if is_one else []


def which_survive(summary: Summary) -> str:
    """Which orders the free memory is in as the ageing ends, in words; empty without a count."""
    orders = free_orders(summary)
    if orders is None:
        return ""
    at_end = [sizes[-1] for sizes in orders.by_order]
    total, largest = sum(at_end), orders.by_order[-1]
    if not total:
        return ""
    small = sum(at_end[:-2])
    shares = [
        f"{percent_text(at_end[10] / total)} of it in blocks of order 10",
        f"{percent_text(at_end[9] / total)} of order 9",
        f"{percent_text(small / total)} in smaller ones",
    ]
    words = (
        f"After {duration_text(orders.times_s[-1])}, {size_text(total)} were free, "
        f"{listed(shares)}; blocks of order 10 held {size_text(largest[0])} at the start and "
        f"{size_text(min(largest))} at the least."
    )
    memory = summary.guest.memory_bytes
    resident = next((p.resident_bytes_start for p in summary.phases if p.name == "free"), None)
    if memory is None or resident is None:
        return words
    used = size_text(memory - total)
    return f"{words} The host held {size_text(resident)} then, of which {used} were in use."
