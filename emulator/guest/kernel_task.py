"""The guest's kernel: runs the hinting task, and counts every page when all has come to rest."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.errors import DeviceError
from devices.virtio.notifier import Notifier
from emulator.errors import RunFailed
from emulator.guest.clock import Clock
from emulator.guest.hinting.cycle import Mechanism
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
    BUDDY,
    ISOLATED,
    NR_KINDS,
    PAGE_SIZE,
    PCP,
)
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the guest's pages are when all has come to rest, bytes."""

    below_order: int  # free, in blocks below the order that is reported
    unreported: int  # free, in blocks of that order or above, and not reported
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

    async def run_hinting(
        self, reporter: FreePageReporter | FreePageHinter, freed: Notifier
    ) -> None:
        """Run the mechanism until cancelled; returns at once where it never reports.

        Raises RunFailed if the host breaks the protocol: it may still discard what it was told of.
        """
        cycle: Any = self._cycle
        try:
            if isinstance(reporter, FreePageHinter):
                await hint_free_pages(cycle, reporter, self._hinting)
            elif cycle is not None:
                await report_free_pages(self.mm, cycle, reporter, freed, self._hinting, self._clock)
        except DeviceError as error:
            raise RunFailed(f"the host broke the guest's balloon device: {error}") from error

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
        listed = int(mm.pcps["count"].sum())
        if not unsound and listed != int(counts[PCP]):
            unsound = f"the per-CPU lists hold {listed} pages, {counts[PCP]} are marked so"
        held = int(mm.actors["held_pages"].sum())
        # A vCPU that was killed may not have counted the last thing that it did.
        lost = bool((mm.actors["state"] == ACTOR_LOST).any())
        if not unsound and not lost and held != int(counts[ALLOCATED]):
            unsound = f"the vCPUs hold {held} pages and {counts[ALLOCATED]} are in use"
        reported = int(mm.zones["reported_pages"].sum())
        order = int(mm.kernel[0]["pageblock_order"]) if self._order is None else self._order
        below = sum(int(mm.zones["nr_free"][:, o].sum()) << o for o in range(order))
        return Standing(
            below_order=below * PAGE_SIZE,
            unreported=max(0, int(counts[BUDDY]) - below - reported) * PAGE_SIZE,
            percpu=int(counts[PCP]) * PAGE_SIZE,
            isolated=int(counts[ISOLATED]) * PAGE_SIZE,
            allocated=int(counts[ALLOCATED]) * PAGE_SIZE,
            unsound=unsound,
        )
