"""A guest with free page reporting, for tests that go through its passes step by step."""

from typing import Any

from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting, PageReportingCycle
from emulator.guest.mm.layout import MOVABLE
from tests.support.allocator_kernels import give
from tests.support.guest import Guest, ZoneOf

_SECOND_NS = 1_000_000_000


class ReportingMachine:
    """A guest and its cycle; whoever reports here acknowledges at once.

    Watermarks that a test does not give are so low that they never matter.
    """

    def __init__(self, *zones: ZoneOf, **parameters: Any) -> None:
        mechanism = PageReporting(**{"order": 4, "capacity": 2, **parameters})
        self.guest = Guest(*zones, cpus=1, pageblock_order=4, mechanism=mechanism)
        self.mm = self.guest.mm
        for name in ("watermark_min", "watermark_low"):
            marks = self.mm.zones[name]
            marks[marks == 0] = -(10**6)
        self.control = self.mm.hooks.control[0]
        self.cycle: PageReportingCycle = mechanism.start(self.mm, 1)

    def full(self, order: int = 4) -> list[int]:
        """Take all of zone 0 in blocks of that order; every second, so that none can merge."""
        return sorted(self.guest.fill(order))[::2]

    def free(self, *pfns: int, order: int = 4, at_s: float = 0.0, kind: int = MOVABLE) -> None:
        for pfn in pfns:
            give(self.mm, 0, pfn, order, kind, 0, round(at_s * _SECOND_NS))

    def start(self, now_s: float = 2.0) -> Wait | Report:
        """The first pass begins; without it the cycle waits for 2 s after it was registered."""
        assert self.cycle.step(now_s - 2) == Wait(now_s)
        return self.cycle.step(now_s)

    def finish(self, decision: Wait | Report, now_s: float = 2.0) -> tuple[list[list[int]], Wait]:
        """The page frames of each report until the pass is over."""
        reports = []
        while isinstance(decision, Report):
            reports.append(decision.batch["pfn"].tolist())
            self.cycle.drain(True, now_s)
            decision = self.cycle.step(now_s)
        return reports, decision

    def run(self, now_s: float = 2.0) -> tuple[list[list[int]], Wait]:
        return self.finish(self.start(now_s), now_s)
