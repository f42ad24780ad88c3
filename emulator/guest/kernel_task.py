"""The guest's kernel: runs the hinting task, and counts every page when all has come to rest."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.driver_task import FreePageReporter
from devices.balloon.stats_driver import StatsDriver
from devices.balloon.stats_task import answer_statistics
from devices.virtio.errors import DeviceError
from devices.virtio.notifier import Notifier
from emulator.errors import RunFailed
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.boot import init_deferred
from emulator.guest.clock import Clock
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.cycle import Mechanism, Report
from emulator.guest.hinting.free_page_task import FreePageHinter, hint_free_pages
from emulator.guest.hinting.task import report_free_pages
from emulator.guest.mm.check_kernels import (
    CHECK_MESSAGES,
    check_pcp,
    check_zone,
)
from emulator.guest.mm.layout import (
    ACTOR_LOST,
    ALLOCATED,
    BALLOON,
    BUDDY,
    CACHE,
    ISOLATED,
    NR_KINDS,
    PAGE_CACHE,
    PAGE_SIZE,
    PCP,
)
from emulator.guest.mm.page_cache_check_kernels import CACHE_MESSAGES, check_cache
from emulator.guest.mm.views import GuestMemory, PageCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the guest's pages are when all has come to rest, bytes."""

    below_order: int  # free, in blocks below the order that is reported
    unreported: int  # free, in blocks of that order or above, and not reported
    percpu: int
    isolated: int
    allocated: int
    balloon: int
    page_cache: int | None  # None: the guest has no files.
    unsound: str  # Which invariant does not hold; empty: all do.


class GuestKernel:
    """One guest's kernel, actor `nr_cpus` of `mm`."""

    def __init__(
        self,
        mm: GuestMemory,
        mechanism: Mechanism,
        hinting: npt.NDArray[Any],
        clock: Clock,
        balloon: BalloonTask | None = None,
        costs: GuestCosts | None = None,
    ) -> None:
        self.mm: Final = mm
        self._actor = int(mm.kernel[0]["nr_cpus"])
        self._cycle = mechanism.start(mm, self._actor)
        self._order = getattr(mechanism, "order", None)
        self._name = mechanism.name
        self._hinting = hinting
        self._clock = clock
        self._balloon = balloon
        self._costs = costs
        self.boot_cpu_s = 0.0  # Spent in `run_hinting` on what is boot's.

    async def run_hinting(
        self, reporter: FreePageReporter | FreePageHinter, freed: Notifier
    ) -> None:
        """Run the mechanism until cancelled, once boot has ended (page_alloc_init_late); returns
        then where it never reports.

        Raises RunFailed if the host breaks the protocol: it may still discard what it was told of.
        """
        began_s = time.process_time()
        for _ in init_deferred(self.mm, self._actor):
            self.boot_cpu_s += time.process_time() - began_s
            await trio.lowlevel.checkpoint()
            began_s = time.process_time()
        cycle: Any = self._cycle
        try:
            if isinstance(reporter, FreePageHinter):
                await hint_free_pages(cycle, reporter, self._hinting, self._costs)
            elif cycle is not None:
                await report_free_pages(
                    self.mm, cycle, reporter, freed, self._hinting, self._clock, self._costs
                )
        except DeviceError as error:
            raise RunFailed(f"the host broke the guest's balloon device: {error}") from error

    async def run_balloon(
        self, stats: StatsDriver, shortages: npt.NDArray[Any], wires: Mapping[str, Notifier]
    ) -> None:
        """Follow the balloon's target, help vCPUs that are out of memory, and answer for figures.

        Runs until cancelled.  Raises RunFailed if the host breaks the protocol.
        """
        assert self._balloon is not None
        answer = partial(
            answer_statistics,
            stats,
            self._balloon.balloon.figures,
            kick=wires["stats.kick"],
            call=wires["stats.call"],
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._balloon.follow_target, wires["config"])
                reliefs = [wires[f"relief.{cpu}"] for cpu in range(self._actor)]
                serve = self._balloon.serve_shortages
                nursery.start_soon(serve, shortages, wires["short"], reliefs)
                nursery.start_soon(answer)
        except* DeviceError as group:
            broken = f"the host broke the guest's balloon device: {group.exceptions[0]}"
            raise RunFailed(broken) from group

    def standing(self) -> Standing:
        """Count every page; only when nobody works on the guest's memory any more."""
        mm = self.mm
        for _ in init_deferred(mm, self._actor):  # Of a run that ended before that had.
            pass
        counts = np.zeros(NR_KINDS, np.int64)
        unsound = ""
        nr_zones = int(mm.kernel[0]["nr_zones"])
        for z in range(nr_zones):
            error, where = check_zone(mm, z, counts)
            for cpu in range(self._actor):
                if error == 0:
                    error, where = check_pcp(mm, cpu, z)
            if error != 0 and not unsound:
                unsound = f"zone {z}, page {where}: {CHECK_MESSAGES[error]}"
        isolated = int(counts[ISOLATED]) * PAGE_SIZE
        if not unsound and isolated:
            unsound = self._lost_blocks()
        if not unsound and int(counts.sum()) != int(mm.kernel[0]["nr_pages"]):
            unsound = f"{counts.sum()} pages of {mm.kernel[0]['nr_pages']} are accounted for"
        listed = int(mm.pcps["count"].sum())
        if not unsound and listed != int(counts[PCP]):
            unsound = f"the per-CPU lists hold {listed} pages, {counts[PCP]} are marked so"
        held = int(mm.actors["held_pages"].sum())
        # A vCPU that was killed may not have counted the last thing that it did.
        lost = bool((mm.actors["state"] == ACTOR_LOST).any())
        if not unsound and not lost and held != int(counts[ALLOCATED]):
            unsound = f"the vCPUs hold {held} pages and {counts[ALLOCATED]} are in use"
        ballooned = 0
        if self._balloon is not None:
            ballooned = sum(int(self._balloon.balloon.state[0][n]) for n in ("pages", "between"))
        if not unsound and ballooned != int(counts[BALLOON]):
            unsound = f"the balloon holds {ballooned} pages, {counts[BALLOON]} are marked so"
        has_cache = isinstance(mm.cache, PageCache)
        if not unsound and has_cache:
            found = np.zeros(1, PAGE_CACHE)
            error, where = check_cache(mm, int(counts[CACHE]), found)
            if error != 0:
                unsound = f"the page cache, page or slot {where}: {CACHE_MESSAGES[error]}"
        reported = int(mm.zones["reported_pages"].sum())
        order = int(mm.kernel[0]["pageblock_order"]) if self._order is None else self._order
        below = sum(int(mm.zones["nr_free"][:, o].sum()) << o for o in range(order))
        return Standing(
            below_order=below * PAGE_SIZE,
            unreported=max(0, int(counts[BUDDY]) - below - reported) * PAGE_SIZE,
            percpu=int(counts[PCP]) * PAGE_SIZE,
            isolated=isolated,
            allocated=int(counts[ALLOCATED]) * PAGE_SIZE,
            balloon=int(counts[BALLOON]) * PAGE_SIZE,
            page_cache=int(counts[CACHE]) * PAGE_SIZE if has_cache else None,
            unsound=unsound,
        )

    def _lost_blocks(self) -> str:
        """What is isolated beyond the batch that the mechanism had in hand as the run ended: some
        isolate the next batch as they put one back.  Empty: nothing."""
        step = getattr(self._cycle, "step", None)
        decision = None if step is None else step(self._clock.now_s())
        lost = int(self.mm.zones["isolated_pages"].sum())
        if isinstance(decision, Report):
            lost -= int((1 << decision.batch["order"].astype(np.int64)).sum())
        if lost <= 0:
            return ""
        return (
            f"the mechanism {self._name} isolated {lost * PAGE_SIZE} bytes and never put them back"
        )
