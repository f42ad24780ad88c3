"""The hinting task: has a mechanism's free blocks reported to the host."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.driver_task import FreePageReporter
from devices.virtio.layout import SEGMENT
from devices.virtio.notifier import Notifier
from emulator.guest.clock import Clock
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.cycle import Cycle, Wait, require_decision
from emulator.guest.histogram import bucket_indices
from emulator.guest.mm.layout import PAGE_SHIFT, TICK_MASK, TICK_SHIFT
from emulator.guest.mm.views import GuestMemory
from emulator.guest.virtual_time import sleep


class Reporter(Protocol):
    """The driver half of the balloon device."""

    async def report(self, ranges: npt.NDArray[Any]) -> bool:
        """True: acknowledged; False: the device was reset."""


_: type[Reporter] = FreePageReporter  # Checked by the type checker: the one that is used.


async def report_free_pages(
    mm: GuestMemory,
    cycle: Cycle,
    reporter: Reporter,
    freed: Notifier,
    hinting: npt.NDArray[Any],
    clock: Clock,
    costs: GuestCosts | None = None,
) -> None:
    """Run a mechanism's cycle for ever.

    hinting: HINTING[1], what it counts;  costs: what it pays in virtual time.
    """
    counts = hinting[0]
    while True:
        await trio.lowlevel.checkpoint()  # Cancellable even while every decision is to report.
        decision = cycle.step(clock.now_s())
        require_decision(decision, cycle)
        if isinstance(decision, Wait):
            await pay(costs, reports=0)
            with trio.move_on_at(clock.deadline(decision.until_s)):
                await freed.wait_notified()
            counts["wakeups"] += 1
            continue
        batch = decision.batch
        # Until the host acknowledges, it may discard these blocks at any time.  Were they put
        # back earlier, it would discard memory in use.  So report() is shielded, and must end
        # by itself: acknowledged (True), or with the device reset (False).
        with trio.CancelScope(shield=True):
            await pay(costs, reports=1)
            reported = await reporter.report(segments_of(batch))
        now_s = clock.now_s()
        if reported:
            _count(mm, batch, counts, round(now_s * 1e9))
        else:
            counts["failed_reports"] += 1
        cycle.drain(reported, now_s)
        await pay(costs, reports=0)


async def pay(costs: GuestCosts | None, *, reports: int) -> None:
    """Take the time that the last step cost, where nothing takes time by itself."""
    if costs is not None:
        await sleep(costs.charge_task(reports))


def segments_of(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """BATCH[n] -> SEGMENT[n]: guest-physical address and length in bytes of each block."""
    segments = np.zeros(len(batch), SEGMENT)
    segments["addr"] = batch["pfn"] << PAGE_SHIFT
    segments["len"] = 1 << (batch["order"] + PAGE_SHIFT)
    return segments


def _count(mm: GuestMemory, batch: npt.NDArray[Any], counts: Any, now_ns: int) -> None:
    counts["reports"] += 1
    counts["blocks"] += len(batch)
    counts["claimed_bytes"] += int((1 << (batch["order"] + PAGE_SHIFT)).sum())
    freed_at = mm.pages["stamp"][batch["pfn"]].astype(np.int64)
    ticks = ((now_ns >> TICK_SHIFT) - freed_at[freed_at != 0]) & TICK_MASK
    # A block that nobody has freed since boot (stamp 0) has no latency.
    np.add.at(counts["reclaim_latency_ns"], bucket_indices(ticks << TICK_SHIFT), 1)
