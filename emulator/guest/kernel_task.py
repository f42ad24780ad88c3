"""The guest's kernel: brings memory up, runs the hinting task, buries vCPUs that were killed."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.notifier import Notifier
from emulator.guest.clock import Clock
from emulator.guest.hinting.cycle import Mechanism
from emulator.guest.hinting.task import report_free_pages
from emulator.guest.mm.check_kernels import (
    CHECK_MESSAGES,
    check_pcp,
    check_zone,
    free_owned,
    owner_of_lock,
    rebuild_free_lists,
    rebuild_pcps,
)
from emulator.guest.mm.layout import (
    ACTOR_LOST,
    ALLOCATED,
    BUDDY,
    ISOLATED,
    NR_KINDS,
    PAGE_SIZE,
    PCP,
)
from emulator.guest.mm.lock_kernels import acquire_zone, release_zone, seize_zone
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the guest's pages are when all has come to rest, bytes."""

    free_unreported: int
    below_order: int
    percpu: int
    isolated: int
    allocated: int
    unsound: str  # Which invariant does not hold; empty: all do.


class GuestKernel:
    """One guest's kernel, actor `nr_cpus` of `mm`."""

    def __init__(
        self,
        mm: GuestMemory,
        mechanism: Mechanism,
        hinting: npt.NDArray[Any],
        clock: Clock,
    ) -> None:
        self.mm: Final = mm
        self._actor = int(mm.kernel[0]["nr_cpus"])
        self._cycle = mechanism.start(mm, self._actor)
        self._order = getattr(mechanism, "order", None)
        self._hinting = hinting
        self._clock = clock

    async def run_hinting(self, reporter: FreePageReporter, freed: Notifier) -> None:
        """Run the mechanism until cancelled; returns at once where it never reports."""
        if self._cycle is not None:
            await report_free_pages(
                self.mm, self._cycle, reporter, freed, self._hinting, self._clock
            )

    def bury(self, cpu: int) -> int:
        """Take back the pages and locks of vCPU `cpu`, whose process died; returns its pages.

        Free lists that it may have left half changed are rebuilt from the page array.
        """
        mm, me = self.mm, self._actor
        mm.actors[cpu]["state"] = ACTOR_LOST
        rebuild_pcps(mm, cpu)
        freed = 0
        for z in range(int(mm.kernel[0]["nr_zones"])):
            if owner_of_lock(mm, z) == cpu:
                seize_zone(mm, z, me)
                freed += int(rebuild_free_lists(mm, z))
            else:
                acquire_zone(mm, z, me)
            freed += int(free_owned(mm, z, cpu, round(self._clock.now_s() * 1e9)))
            release_zone(mm, z, me)
        mm.actors[cpu]["held_pages"] = 0
        self._hinting[0]["lost_pages"] += freed
        return freed

    def standing(self) -> Standing:
        """Count every page; only when nobody works on the guest's memory any more."""
        mm = self.mm
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
        if not unsound and int(counts.sum()) != int(mm.kernel[0]["nr_pages"]):
            unsound = f"{counts.sum()} pages of {mm.kernel[0]['nr_pages']} are accounted for"
        held = int(mm.actors["held_pages"].sum())
        if not unsound and held != int(counts[ALLOCATED]):
            unsound = f"the vCPUs hold {held} pages and {counts[ALLOCATED]} are in use"
        reported = int(mm.zones["reported_pages"].sum())
        order = int(mm.kernel[0]["pageblock_order"]) if self._order is None else self._order
        below = sum(int(mm.zones["nr_free"][:, o].sum()) << o for o in range(order))
        return Standing(
            free_unreported=(int(counts[BUDDY]) - reported) * PAGE_SIZE,
            below_order=below * PAGE_SIZE,
            percpu=int(counts[PCP]) * PAGE_SIZE,
            isolated=int(counts[ISOLATED]) * PAGE_SIZE,
            allocated=int(counts[ALLOCATED]) * PAGE_SIZE,
            unsound=unsound,
        )
