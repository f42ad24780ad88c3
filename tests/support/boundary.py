"""A guest whose blocks a test places by hand, and the worker of aeration or page_hinting on it."""

from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.aeration import Aeration
from emulator.guest.hinting.mechanisms.boundary import ACTIVE, REQUESTED
from emulator.guest.hinting.mechanisms.page_hinting import PageHinting
from emulator.guest.mm.buddy_kernels import FREE_NOTIFYING
from emulator.guest.mm.layout import MARK_REPORTED, MAX_ORDER, MOVABLE, NR_MIGRATETYPES, NR_ORDERS
from tests.support.allocator_kernels import give, split, take
from tests.support.guest import Guest, ZoneOf

BLOCK = 1 << MAX_ORDER  # pages of the largest block


class Worker:
    """A mechanism on a guest of `blocks` free blocks of 4 MiB: page frames 0, 1024, ..."""

    def __init__(self, mechanism: Aeration | PageHinting, *zones: ZoneOf, blocks: int = 4) -> None:
        self.guest = Guest(*(zones or (ZoneOf(pages=blocks * BLOCK),)), mechanism=mechanism)
        self.mm = self.guest.mm
        self.hooks = self.mm.hooks
        self.control = self.hooks.control[0]
        self.cycle = mechanism.start(self.mm, 1)

    def pulled(self, now_s: float) -> list[tuple[int, int]]:
        """Page frames and orders of the batch that the worker reports now."""
        decision = self.cycle.step(now_s)
        assert isinstance(decision, Report), decision
        return [(int(block["pfn"]), int(block["order"])) for block in decision.batch]

    def waits(self, now_s: float) -> float | None:
        """Until when the worker waits."""
        decision = self.cycle.step(now_s)
        assert isinstance(decision, Wait), decision
        return decision.until_s

    def report_all(self, now_s: float) -> list[list[tuple[int, int]]]:
        """Every batch until the worker waits, each reported at once."""
        batches = []
        while isinstance(decision := self.cycle.step(now_s), Report):
            batches.append([(int(b["pfn"]), int(b["order"])) for b in decision.batch])
            self.cycle.drain(True, now_s)
        self.check()
        return batches

    def take(self, order: int = MAX_ORDER, migratetype: int = MOVABLE, z: int = 0) -> int:
        """A block from the head of a list."""
        return int(take(self.mm, z, order, migratetype, 0))

    def free(
        self,
        pfn: int,
        order: int = MAX_ORDER,
        migratetype: int = MOVABLE,
        *,
        now_s: float = 0.0,
        flags: int = FREE_NOTIFYING,
        z: int = 0,
    ) -> None:
        """Free a block that was taken, or a part of it."""
        split(self.mm, pfn, order)
        give(self.mm, z, pfn, order, migratetype, flags, round(now_s * 1e9))

    def list_of(self, order: int = MAX_ORDER, migratetype: int = MOVABLE) -> list[int]:
        """Page frames from head to tail, the marked ones negative (0 as -1)."""
        pages = self.mm.pages
        return [
            -(pfn or 1) if pages[pfn]["mark"] & MARK_REPORTED else pfn
            for pfn in self.guest.free_list(order, migratetype)
        ]

    def boundary(self, order: int = MAX_ORDER, migratetype: int = MOVABLE) -> int | None:
        """The page frame that it points at; None: the list's end."""
        at = int(self.hooks.boundary[order * NR_MIGRATETYPES + migratetype])
        return at if at < self.mm.kernel[0]["nr_pages"] else None

    def flags(self, z: int = 0) -> tuple[bool, bool]:
        """REQUESTED, ACTIVE."""
        flags = int(self.hooks.zones[z]["flags"])
        return bool(flags & REQUESTED), bool(flags & ACTIVE)

    def refcnt(self) -> int:
        """References to the worker."""
        return int(self.control["refcnt"])

    def counted(self, order: int = MAX_ORDER, z: int = 0) -> int:
        """The mechanism's own statistics: marked blocks of one order."""
        if hasattr(self.hooks, "hinted_pages"):
            return int(self.hooks.hinted_pages[z]["nr_hinted"][order])
        return int(self.hooks.zones[z]["nr_free_aerated"][order])

    def check(self) -> None:
        """The allocator's invariants, and that the statistics are true."""
        self.guest.counts()
        pages = self.mm.pages
        for z, zone in enumerate(self.mm.zones):
            marked = [pfn for pfn in self.guest.reported() if pfn in range(*_span(zone))]
            for order in range(NR_ORDERS):
                blocks = sum(int(pages[pfn]["order"]) == order for pfn in marked)
                assert self.counted(order, z) == blocks


def _span(zone: object) -> tuple[int, int]:
    return int(zone["start_pfn"]), int(zone["end_pfn"])  # type: ignore[index]
