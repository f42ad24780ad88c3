"""The allocator of Linux 6.6 once more, as plain lists: what the kernels are held against.

Written from the description of mm/page_alloc.c and not from the kernels.  A free list is a Python
list of page frames, its head first; everything is looked up by walking, so nothing can disagree.
"""

from dataclasses import dataclass, field

MAX_ORDER = 10
UNMOVABLE, MOVABLE, RECLAIMABLE = range(3)
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}
NR_PCP_LISTS = 14


@dataclass
class Zone:
    """struct zone."""

    start: int
    end: int
    managed: int
    min: int
    low: int
    high: int
    reserve: int
    boost: int = 0
    free: dict[tuple[int, int], list[int]] = field(
        default_factory=lambda: {(o, t): [] for o in range(MAX_ORDER + 1) for t in range(3)}
    )

    def free_pages(self) -> int:
        return sum(len(blocks) << order for (order, _), blocks in self.free.items())

    def list_of(self, pfn: int, order: int) -> list[int] | None:
        """The list that a free block of just this order is on."""
        for migratetype in range(3):
            if pfn in self.free[order, migratetype]:
                return self.free[order, migratetype]
        return None

    def watermark_ok(self, order: int, mark: int) -> bool:
        """__zone_watermark_ok."""
        if self.free_pages() - ((1 << order) - 1) <= mark:
            return False
        return order == 0 or any(b for (o, _), b in self.free.items() if o >= order)


@dataclass
class Pcp:
    """struct per_cpu_pages."""

    batch: int
    high: int
    free_factor: int = 0
    lists: list[list[int]] = field(default_factory=lambda: [[] for _ in range(NR_PCP_LISTS)])


class LinuxModel:
    """Zones, pageblocks and per-CPU lists of one guest."""

    def __init__(
        self,
        zones: list[Zone],
        pcps: dict[tuple[int, int], Pcp],
        *,
        pages: int,
        block_order: int,
        thp: bool,
        nofragment: bool,
    ) -> None:
        self.zones, self.pcps = zones, pcps
        self.block_order, self.thp, self.nofragment = block_order, thp, nofragment
        self.block_type = [MOVABLE] * -(-pages // (1 << block_order))
        self.page_type: dict[int, int] = {}  # set_pcppage_migratetype
        self.reported: set[int] = set()
        self.in_use: dict[int, tuple[int, int]] = {}  # pfn -> order, migratetype

    # --- The zone's lists.

    def unlink(self, zone: Zone, pfn: int, order: int) -> None:
        """del_page_from_free_list."""
        blocks = zone.list_of(pfn, order)
        assert blocks is not None
        blocks.remove(pfn)
        self.reported.discard(pfn)

    def free_one(
        self, zone: Zone, pfn: int, order: int, migratetype: int, *, to_tail: bool = False
    ) -> int:
        """__free_one_page; the final order."""
        while order < MAX_ORDER and zone.list_of(pfn ^ 1 << order, order) is not None:
            self.unlink(zone, pfn ^ 1 << order, order)
            pfn &= ~(1 << order)
            order += 1
        if not to_tail and order < MAX_ORDER - 1:
            above = pfn & ~(1 << order)
            to_tail = zone.list_of(above ^ 2 << order, order + 1) is not None
        blocks = zone.free[order, migratetype]
        blocks.insert(len(blocks) if to_tail else 0, pfn)
        return order

    def rmqueue(self, zone: Zone, order: int, migratetype: int, nofragment: bool) -> int | None:
        """__rmqueue."""
        while True:
            for current in range(order, MAX_ORDER + 1):
                if zone.free[current, migratetype]:
                    pfn = zone.free[current, migratetype][0]
                    self.unlink(zone, pfn, current)
                    while current > order:  # expand
                        current -= 1
                        zone.free[current, migratetype].insert(0, pfn + (1 << current))
                    return pfn
            if not self.fall_back(zone, order, migratetype, nofragment):
                return None

    def fall_back(self, zone: Zone, order: int, migratetype: int, nofragment: bool) -> bool:
        """__rmqueue_fallback."""

        def find(current: int) -> int | None:
            return next((t for t in FALLBACKS[migratetype] if zone.free[current, t]), None)

        def can_steal(current: int) -> bool:
            return current >= self.block_order // 2 or migratetype in (UNMOVABLE, RECLAIMABLE)

        order_min = max(order, self.block_order) if nofragment else order
        found = next((o for o in range(MAX_ORDER, order_min - 1, -1) if find(o) is not None), None)
        if found is None:
            return False
        if not can_steal(found) and migratetype == MOVABLE and found > order:
            found = next(o for o in range(order, MAX_ORDER + 1) if find(o) is not None)
        donor = find(found)
        assert donor is not None
        self.steal(zone, zone.free[found, donor][0], found, migratetype, can_steal(found))
        return True

    def move(self, zone: Zone, pfn: int, order: int, migratetype: int) -> None:
        """move_to_free_list."""
        blocks = zone.list_of(pfn, order)
        assert blocks is not None
        blocks.remove(pfn)
        zone.free[order, migratetype].append(pfn)

    def steal(self, zone: Zone, pfn: int, order: int, migratetype: int, whole: bool) -> None:
        """steal_suitable_fallback."""
        size = 1 << self.block_order
        if order >= self.block_order:
            for block in range(pfn >> self.block_order, pfn + (1 << order) >> self.block_order):
                self.block_type[block] = migratetype
            self.move(zone, pfn, order, migratetype)
            return
        if size * 4 <= zone.managed and zone.high * 3 // 2 > 0:
            zone.boost = min(zone.boost + size, max(size, zone.high * 3 // 2))
        start = pfn & -size
        if not whole or start + size > zone.end:
            self.move(zone, pfn, order, migratetype)
            return
        free = 0
        for at in range(max(start, zone.start), start + size):
            for current in range(MAX_ORDER + 1):
                if zone.list_of(at, current) is not None:
                    self.move(zone, at, current, migratetype)
                    free += 1 << current
        movable = sum(
            1 << used
            for at, (used, kind) in self.in_use.items()
            if start <= at < start + size and kind == MOVABLE
        )
        alike = 0
        if migratetype == MOVABLE:
            alike = movable
        elif self.block_type[start >> self.block_order] == MOVABLE:
            alike = size - (free + movable)
        if free + alike >= size // 2:
            self.block_type[start >> self.block_order] = migratetype

    def isolate(self, zone: Zone, pfn: int, order: int) -> bool:
        """__isolate_free_page."""
        if not zone.watermark_ok(0, zone.min + (1 << order)):
            return False
        self.unlink(zone, pfn, order)
        if order >= self.block_order - 1:
            last = pfn + (1 << order) - 1
            for block in range(pfn >> self.block_order, (last >> self.block_order) + 1):
                self.block_type[block] = MOVABLE
        return True

    def put_back(self, zone: Zone, pfn: int, order: int) -> int:
        """__putback_isolated_page."""
        kind = self.block_type[pfn >> self.block_order]
        return self.free_one(zone, pfn, order, kind, to_tail=True)

    # --- The per-CPU lists.

    def pindex(self, order: int, migratetype: int) -> int | None:
        """order_to_pindex; None: such blocks go straight to the zone."""
        if order <= 3:
            return 3 * order + migratetype
        if self.thp and order == self.block_order:
            return 12 + (migratetype == MOVABLE)
        return None

    def order_of(self, pindex: int) -> int:
        return self.block_order if pindex >= 12 else pindex // 3

    def count(self, pcp: Pcp) -> int:
        return sum(len(blocks) << self.order_of(i) for i, blocks in enumerate(pcp.lists))

    def bulk_free(self, z: int, pcp: Pcp, count: int, pindex: int) -> None:
        """free_pcppages_bulk."""
        count = min(count, self.count(pcp))
        while count > 0:
            while not pcp.lists[pindex]:
                pindex = (pindex + 1) % NR_PCP_LISTS
            order = self.order_of(pindex)
            while count > 0 and pcp.lists[pindex]:
                pfn = pcp.lists[pindex].pop()
                self.free_one(self.zones[z], pfn, order, self.page_type[pfn])
                count -= 1 << order
            pindex = (pindex + 1) % NR_PCP_LISTS

    def drain(self, cpu: int) -> None:
        """drain_local_pages."""
        for z in range(len(self.zones)):
            self.bulk_free(z, self.pcps[cpu, z], self.count(self.pcps[cpu, z]), 0)

    def zone_of(self, pfn: int) -> int:
        return next(z for z, zone in enumerate(self.zones) if pfn < zone.end)

    def free_block(self, cpu: int, pfn: int) -> None:
        """free_unref_page, or free_one_page."""
        order, _ = self.in_use.pop(pfn)
        z = self.zone_of(pfn)
        kind = self.block_type[pfn >> self.block_order]
        pindex = self.pindex(order, kind)
        if pindex is None:
            self.free_one(self.zones[z], pfn, order, kind)
            return
        pcp = self.pcps[cpu, z]
        self.page_type[pfn] = kind
        pcp.lists[pindex].insert(0, pfn)
        free_high = bool(pcp.free_factor) and 0 < order <= 3
        if self.count(pcp) < (0 if free_high else pcp.high):
            return
        if free_high:  # nr_pcp_free
            number = self.count(pcp)
        elif pcp.high < pcp.batch:
            number = 1
        else:
            most = pcp.high - pcp.batch
            number = pcp.batch << pcp.free_factor
            pcp.free_factor += number < most
            number = min(max(number, pcp.batch), most)
        self.bulk_free(z, pcp, number, pindex)

    def alloc_block(self, cpu: int, order: int, migratetype: int) -> int | None:
        """__alloc_pages, with no kswapd; the watermark is looked at when a list is refilled."""
        ways = [(False, False), (True, False), (True, True)]
        if self.nofragment:
            ways.insert(0, (False, True))
        pfn = self.pcp_head(cpu, len(self.zones) - 1, order, migratetype)
        for attempt in range(len(ways) if pfn is None else 0):
            below_low = attempt >= len(ways) - 2
            if attempt == len(ways) - 1:
                self.drain(cpu)
            nofragment = self.nofragment and attempt == 0
            for z in reversed(range(len(self.zones))):
                pfn = self.from_zone(cpu, z, order, migratetype, below_low, nofragment)
                if pfn is not None:
                    break
            if pfn is not None:
                break
        if pfn is not None:
            self.in_use[pfn] = (order, migratetype)
        return pfn

    def from_zone(
        self, cpu: int, z: int, order: int, migratetype: int, below_low: bool, nofragment: bool
    ) -> int | None:
        """rmqueue."""
        pfn = self.pcp_head(cpu, z, order, migratetype)
        if pfn is not None:
            return pfn
        zone = self.zones[z]
        mark = zone.min if below_low else zone.low + zone.boost
        if z + 1 < len(self.zones):
            mark += zone.reserve
        if not zone.watermark_ok(order, mark):
            return None
        zone.boost = 0
        pindex = self.pindex(order, migratetype)
        if pindex is None:
            return self.rmqueue(zone, order, migratetype, nofragment)
        pcp = self.pcps[cpu, z]
        wanted = max(pcp.batch >> order, 2) if pcp.batch > 1 else pcp.batch
        for _ in range(wanted):  # rmqueue_bulk
            pfn = self.rmqueue(zone, order, migratetype, nofragment)
            if pfn is None:
                break
            self.page_type[pfn] = migratetype
            pcp.lists[pindex].append(pfn)
        return self.pcp_head(cpu, z, order, migratetype)

    def pcp_head(self, cpu: int, z: int, order: int, migratetype: int) -> int | None:
        pindex = self.pindex(order, migratetype)
        if pindex is None or not self.pcps[cpu, z].lists[pindex]:
            return None
        self.pcps[cpu, z].free_factor >>= 1
        return self.pcps[cpu, z].lists[pindex].pop(0)
