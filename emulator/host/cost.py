"""What the host pays in virtual time for the reports that it serves.

Without a `[cost]` table a report takes what giving its memory back takes (`host.discard`).
"""

import operator
from typing import Any, Final

import numpy.typing as npt

from devices.memory.ram import HUGE_PAGES, PAGE_SIZE
from emulator.config.cost import CostConfig


class HostCosts:
    """account: HOST[1], what the host has counted;  discard_bytes_per_s: `host.discard`."""

    def __init__(
        self, account: npt.NDArray[Any], prices: CostConfig | None, discard_bytes_per_s: float
    ) -> None:
        names = ("ranges", "discards", "huge_pages", "returned_bytes")
        self._columns = [account[name] for name in names]
        self._prices = prices
        self._bytes_per_s: Final = discard_bytes_per_s
        self._before = self._counted()
        self.cpu_s = 0.0

    def _counted(self) -> list[int]:
        return [column.item() for column in self._columns]

    def report_s(self, blocks: int) -> float:
        """How long the host takes for the report of `blocks` that it has just carried out."""
        now = self._counted()
        ranges, discards, huge, returned = map(operator.sub, now, self._before)
        self._before = now
        prices = self._prices
        if prices is None:
            return float(returned / self._bytes_per_s)
        small_bytes = returned - huge * HUGE_PAGES * PAGE_SIZE
        work_s = prices.report_s + blocks * prices.block_s
        work_s += ranges * prices.discard_call_s + discards * prices.flushes * prices.flush_s
        work_s += huge * prices.discard_huge_s + small_bytes / self._bytes_per_s
        self.cpu_s += work_s
        return work_s + prices.wake_s
