"""The page cache beside a model of its files: every page in one place, nothing written is lost.

vCPUs read, write, map, allocate and die; pages are written back, reclaimed by each of the three
ways and dropped; the host discards what is free.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devices.memory.jit import interpreted
from emulator.guest.mm.check_kernels import rebuild_pcps
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    CACHE,
    MOVABLE,
    NO_PAGE,
    NO_SLOT_PAGE,
    PAGE_CACHE,
    WRITE_BACK,
)
from emulator.guest.mm.owner_kernels import free_owned
from emulator.guest.mm.page_cache_check_kernels import rebuild_cache
from emulator.guest.mm.page_cache_kernels import drop_slots, unmap_slots
from emulator.guest.mm.reclaim_kernels import kswapd_pass
from emulator.guest.mm.write_back_kernels import begin_write_back, end_write_back
from tests.support import cache_kernels
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf

CPUS = 2
SIZES = (3, 200, 40, 130)
FIRST = [0, 3, 203, 243]
cpus = st.integers(0, CPUS - 1)
actors = st.integers(0, CPUS)
files = st.integers(0, len(SIZES) - 1)
places = st.integers(0, 199)


def zone(pages: int, name: str) -> ZoneOf:
    return ZoneOf(pages=pages, name=name, watermark_min=16, watermark_low=24, watermark_high=32)


class PageCacheMachine(RuleBasedStateMachine):
    """`content`: the version that each slot must have; `on_disk`: what was written of it."""

    @initialize(
        pages=st.sampled_from([128, 300, 512]),
        batch=st.sampled_from([1, 7]),
        node=st.booleans(),
    )
    def boot(self, pages: int, batch: int, node: bool) -> None:
        self.guest = Guest(
            zone(64, "DMA"),
            zone(pages, "NORMAL"),
            cpus=CPUS,
            pageblock_order=5,
            files=SIZES,
        )
        self.guest.set_pcp(batch=batch, high=20)
        self.mm, self.ram = self.guest.mm, self.guest.ram
        self.mm.cache.control["node_reclaim"] = node
        self.content = [0] * sum(SIZES)
        self.on_disk = [0] * sum(SIZES)
        self.owner: dict[int, int] = {}
        self.on_its_way = np.zeros(0, WRITE_BACK)
        self.pfns = np.zeros(64, np.uint32)

    # --- vCPUs.

    @rule(cpu=cpus, file=files, index=places, count=st.integers(1, 20), mapped=st.booleans())
    def read(self, cpu: int, file: int, index: int, count: int, mapped: bool) -> None:
        index %= SIZES[file]
        count = min(count, SIZES[file] - index)
        got = cache_kernels.read(self.mm, self.ram, cpu, file, index, count, mapped, self.pfns)
        assert 0 <= got <= count

    @rule(cpu=cpus, file=files, index=places, count=st.integers(1, 20))
    def write(self, cpu: int, file: int, index: int, count: int) -> None:
        index %= SIZES[file]
        count = min(count, SIZES[file] - index)
        got = cache_kernels.write(self.mm, self.ram, cpu, file, index, count, self.pfns)
        for slot in range(FIRST[file] + index, FIRST[file] + index + got):
            self.content[slot] += 1

    @rule(cpu=cpus, file=files)
    def unmap(self, cpu: int, file: int) -> None:
        unmap_slots(self.mm, cpu, FIRST[file], SIZES[file])

    @rule(cpu=cpus, order=st.sampled_from([0, 0, 0, 1, 3, 5]), count=st.integers(1, 60))
    def allocate(self, cpu: int, order: int, count: int) -> None:
        for _ in range(count):
            pfn = int(alloc(self.mm, cpu, order, MOVABLE))
            if pfn == NO_PAGE:
                return
            assert pfn not in self.owner
            self.owner[pfn] = cpu

    @precondition(lambda self: self.owner)
    @rule(cpu=cpus, count=st.integers(1, 80))
    def release(self, cpu: int, count: int) -> None:
        for pfn in list(self.owner)[:count]:
            free(self.mm, cpu, pfn, int(self.mm.pages[pfn]["order"]))
            del self.owner[pfn]

    @rule(cpu=cpus, holding=st.booleans())
    def die(self, cpu: int, holding: bool) -> None:
        """What it put into the cache stays; holding the lock, only the lists' order is lost."""
        if holding:
            assert rebuild_cache(self.mm, cpu, np.zeros(1, PAGE_CACHE)) == 0
        rebuild_pcps(self.mm, cpu)
        for z in (0, 1):
            free_owned(self.mm, z, cpu, 0)
        self.owner = {pfn: owner for pfn, owner in self.owner.items() if owner != cpu}

    # --- The guest's kernel and the host.

    @rule(batch=st.integers(1, 40))
    def begin(self, batch: int) -> None:
        if len(self.on_its_way):
            return
        self.on_its_way = np.zeros(batch, WRITE_BACK)
        now_ns = int(self.mm.kernel[0]["virtual_now_ns"])
        count = begin_write_back(self.mm, self.ram, CPUS, self.on_its_way, now_ns)
        self.on_its_way = self.on_its_way[:count]
        for slot, version in self.on_its_way.tolist():
            assert version == self.content[slot]

    @precondition(lambda self: len(self.on_its_way) > 0)
    @rule()
    def end(self) -> None:
        end_write_back(self.mm, CPUS, self.on_its_way, len(self.on_its_way))
        for slot, version in self.on_its_way.tolist():
            self.on_disk[slot] = version
        self.on_its_way = np.zeros(0, WRITE_BACK)

    @rule(priority=st.sampled_from([12, 4, 1, 0]))
    def run_kswapd(self, priority: int) -> None:
        kswapd_pass(self.mm, CPUS, priority)

    @rule(cpu=cpus)
    def reclaim_directly(self, cpu: int) -> None:
        cache_kernels.direct(self.mm, cpu)

    @rule(actor=actors, order=st.integers(0, 6))
    def reclaim_in_node(self, actor: int, order: int) -> None:
        mapped = int(self.mm.cache.control[0]["mapped_pages"])
        cache_kernels.node(self.mm, actor, order)
        assert self.mm.cache.control[0]["mapped_pages"] == mapped

    @rule(cpu=cpus)
    def drop(self, cpu: int) -> None:
        drop_slots(self.mm, cpu, 0, len(self.content))

    @rule()
    def discard(self) -> None:
        """The host takes what is free: nothing else may miss it."""
        kinds = self.mm.pages["kind"][: int(self.mm.kernel[0]["nr_pages"])]
        for pfn in np.flatnonzero(kinds == BUDDY).tolist():
            self.ram.words[pfn : pfn + (1 << int(self.mm.pages[pfn]["order"]))] = 0

    @rule(ns=st.integers(1, 1000))
    def time_passes(self, ns: int) -> None:
        self.mm.kernel[0]["virtual_now_ns"] += ns

    # --- What always holds.

    @invariant()
    def every_page_is_in_one_place_and_nothing_is_lost(self) -> None:
        if not hasattr(self, "guest"):
            return
        counts = self.guest.counts()
        cache = self.mm.cache
        in_use = sum(1 << int(self.mm.pages[pfn]["order"]) for pfn in self.owner)
        assert counts[ALLOCATED] == in_use
        assert counts[CACHE] == cache.control[0]["pages"]
        assert cache.slots["version"].tolist() == self.content
        assert cache.image["version"].tolist() == self.on_disk
        absent = cache.slots["pfn"] == NO_SLOT_PAGE
        assert (cache.slots["version"][absent] == cache.image["version"][absent]).all()
        assert self.mm.actors["violations"].sum() == 0
        assert cache.control[0]["lock"] == 0


PageCacheMachine.TestCase.settings = settings(
    max_examples=20 if interpreted() else 60, stateful_step_count=40, deadline=None
)
TestPageCache = PageCacheMachine.TestCase
