"""The allocator beside a plain model of Linux's: every list position, and every page in one place.

Several vCPUs allocate, free each other's blocks, drain and die; the hinting task isolates blocks,
puts them back and marks them.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from devices.memory.jit import interpreted
from emulator.guest.mm.check_kernels import rebuild_free_lists, rebuild_pcps
from emulator.guest.mm.layout import ALLOCATED, BUDDY, ISOLATED, NO_PAGE, PCP, RESERVED
from emulator.guest.mm.owner_kernels import free_owned
from emulator.guest.mm.page_alloc_kernels import drain_if_requested, drain_pcps
from tests.support.allocator_kernels import alloc, free, isolate, put_back, report
from tests.support.guest import Guest, ZoneOf
from tests.support.linux_model import NR_PCP_LISTS, LinuxModel, Pcp, Zone

CPUS = 3
cpus = st.integers(0, CPUS - 1)
orders = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 10])
migratetypes = st.sampled_from([0, 1, 1, 1, 2])


class Allocator(RuleBasedStateMachine):
    """`owner`: of each block in use; `isolated`: zone, page frame and order of what is off."""

    @initialize(
        block_order=st.sampled_from([3, 4, 5, 9]),
        thp=st.booleans(),
        batch=st.sampled_from([1, 3, 7, 15]),
        high=st.sampled_from([4, 40, 100]),
        first=st.sampled_from(["DMA32", "DMA"]),
        reserved=st.sampled_from([0, 1, 37]),
    )
    def boot(
        self, block_order: int, thp: bool, batch: int, high: int, first: str, reserved: int
    ) -> None:
        marks = {"watermark_min": 24, "watermark_low": 40, "watermark_high": 56}
        self.guest = Guest(
            ZoneOf(pages=1024, name=first, reserved=reserved, **marks),
            ZoneOf(pages=2048 + 1024 + 44, name="NORMAL", **marks),
            cpus=CPUS,
            pageblock_order=block_order,
            thp=thp,
        )
        self.guest.set_pcp(batch=batch, high=high)
        zones = [
            Zone(
                start=int(it["start_pfn"]),
                end=int(it["end_pfn"]),
                managed=int(it["managed"]),
                min=24,
                low=40,
                high=56,
                reserve=int(it["lowmem_reserve"]),
            )
            for it in self.guest.mm.zones
        ]
        pcps = {(cpu, z): Pcp(batch=batch, high=high) for cpu in range(CPUS) for z in (0, 1)}
        self.model = LinuxModel(
            zones,
            pcps,
            pages=int(self.guest.mm.kernel[0]["nr_pages"]),
            block_order=block_order,
            thp=thp,
            nofragment=first == "DMA32",
        )
        self.reserved = reserved
        self.owner: dict[int, int] = {}
        self.isolated: list[tuple[int, int, int]] = []
        for zone, at in zip(zones, (reserved, 1024), strict=True):
            while at < zone.end:  # As largest as alignment allows, ascending, to the tail.
                order = next(
                    o for o in range(10, -1, -1) if at % (1 << o) == 0 and at + (1 << o) <= zone.end
                )
                self.model.free_one(zone, at, order, 1, to_tail=True)
                at += 1 << order

    # --- vCPUs.

    @rule(cpu=cpus, order=orders, migratetype=migratetypes, count=st.sampled_from([1, 1, 5, 60]))
    def allocate(self, cpu: int, order: int, migratetype: int, count: int) -> None:
        for _ in range(count):
            pfn = alloc(self.guest.mm, cpu, order, migratetype)
            expected = self.model.alloc_block(cpu, order, migratetype)
            assert pfn == (NO_PAGE if expected is None else expected)
            if pfn == NO_PAGE:
                return
            assert pfn not in self.owner
            self.owner[int(pfn)] = cpu

    @precondition(lambda self: self.owner)
    @rule(cpu=cpus, at=st.integers(0, 1 << 16), stride=st.integers(1, 3), count=st.integers(1, 60))
    def release(self, cpu: int, at: int, stride: int, count: int) -> None:
        """Blocks of any vCPU."""
        blocks = list(self.owner)
        for pfn in (blocks[at % len(blocks) :: stride])[:count]:
            free(self.guest.mm, cpu, pfn, self.model.in_use[pfn][0])
            self.model.free_block(cpu, pfn)
            del self.owner[pfn]

    @rule(cpu=cpus)
    def drain(self, cpu: int) -> None:
        drain_pcps(self.guest.mm, cpu)
        self.model.drain(cpu)

    @rule(cpu=cpus)
    def answer(self, cpu: int) -> None:
        """Another vCPU ran out of memory and asked for this one's pages."""
        asked = bool(self.guest.mm.actors[cpu]["drain_requested"])
        drain_if_requested(self.guest.mm, cpu)
        if asked:
            self.model.drain(cpu)

    @rule(cpu=cpus, holding=st.sampled_from([None, 0, 1]))
    def die(self, cpu: int, holding: int | None) -> None:
        """All that it held is free; where it held the lock, the lists' order and marks are lost."""
        mm = self.guest.mm
        rebuild_pcps(mm, cpu)
        for z in (0, 1):
            if z == holding:
                assert rebuild_free_lists(mm, z) == 0
                assert not any(self.model.zone_of(int(pfn)) == z for pfn in self.guest.reported())
            free_owned(mm, z, cpu, 0)
        for pfn in [pfn for pfn, owner in self.owner.items() if owner == cpu]:
            del self.owner[pfn], self.model.in_use[pfn]
        for z, zone in enumerate(self.model.zones):
            listed = self.guest.free_lists(z)
            zone.free = {key: listed.get(key, []) for key in zone.free}
            self.model.pcps[cpu, z].lists = [[] for _ in range(NR_PCP_LISTS)]
        self.model.reported = self.guest.reported()

    # --- The hinting task.

    @rule(z=st.sampled_from([0, 1]), order=orders, migratetype=migratetypes)
    def take_off(self, z: int, order: int, migratetype: int) -> None:
        blocks = self.model.zones[z].free[order, migratetype]
        if not blocks:
            return
        pfn = blocks[0]
        taken = isolate(self.guest.mm, z, pfn, order)
        assert taken == self.model.isolate(self.model.zones[z], pfn, order)
        if taken:
            self.isolated.append((z, pfn, order))

    @precondition(lambda self: self.isolated)
    @rule(at=st.integers(0, 1 << 16), reported=st.booleans())
    def give_back(self, at: int, reported: bool) -> None:
        z, pfn, order = self.isolated.pop(at % len(self.isolated))
        merged = put_back(self.guest.mm, z, pfn, order)
        assert merged == self.model.put_back(self.model.zones[z], pfn, order)
        if reported and merged == order:
            report(self.guest.mm, z, pfn)
            self.model.reported.add(pfn)

    # --- What always holds.

    @invariant()
    def lists_are_the_model_s(self) -> None:
        if not hasattr(self, "guest"):
            return
        for z, zone in enumerate(self.model.zones):
            listed = {key: blocks for key, blocks in zone.free.items() if blocks}
            assert self.guest.free_lists(z) == listed
            assert self.guest.mm.zones[z]["watermark_boost"] == zone.boost
            for cpu in range(CPUS):
                pcp = self.model.pcps[cpu, z]
                found = self.guest.pcp_lists(cpu, z)
                assert found == {i: blocks for i, blocks in enumerate(pcp.lists) if blocks}
                assert self.guest.pcp(cpu, z)["count"] == self.model.count(pcp)
                assert self.guest.pcp(cpu, z)["free_factor"] == pcp.free_factor
        assert self.guest.mm.pageblocks.tolist() == self.model.block_type
        assert self.guest.reported() == self.model.reported

    @invariant()
    def every_page_is_in_one_place(self) -> None:
        if not hasattr(self, "guest"):
            return
        counts = self.guest.counts()
        assert counts[ALLOCATED] == sum(1 << order for order, _ in self.model.in_use.values())
        assert counts[ISOLATED] == sum(1 << order for _, _, order in self.isolated)
        assert counts[BUDDY] == sum(zone.free_pages() for zone in self.model.zones)
        assert counts[PCP] == sum(self.model.count(pcp) for pcp in self.model.pcps.values())
        assert counts[RESERVED] == self.reserved
        pages = self.guest.mm.pages
        in_use = np.array(list(self.owner), np.int64)
        assert (pages["kind"][in_use] == ALLOCATED).all()
        assert pages["owner"][in_use].tolist() == list(self.owner.values())
        assert pages["order"][in_use].tolist() == [self.model.in_use[pfn][0] for pfn in self.owner]


Allocator.TestCase.settings = settings(
    max_examples=20 if interpreted() else 60, stateful_step_count=40, deadline=None
)
TestAllocator = Allocator.TestCase
