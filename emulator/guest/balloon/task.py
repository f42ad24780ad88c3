"""The balloon's two tasks in the guest's kernel: towards the target, and out of memory.

Linux's work item (update_balloon_size_func) and OOM notifier (virtio_balloon_oom_notify), Linux
6.6, drivers/virtio/virtio_balloon.c.  They take turns by one lock, `balloon_lock`: not while pages
are allocated or the work sleeps, but from when they enter or leave until the host has been told.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy.typing as npt
import trio

from devices.balloon.layout import PFNS_MAX
from devices.balloon.page_number_task import HostTeller
from devices.virtio.notifier import Notifier
from emulator.guest.balloon.balloon import Balloon
from emulator.guest.balloon.layout import OOM_PAGES
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.task import pay
from emulator.guest.mm.layout import PAGE_SIZE

_SHORT_S: Final = 0.2  # "Sleep for at least 1/5 of a second before retry."


class BalloonTask:
    """One guest's balloon at work.

    inflate, deflate:   tell the host, each by its queue
    hinting:            HINTING[1]: inflated pages count as reports do
    freed:              wakes the hinting task, as a vCPU does that frees
    costs:              what it pays in virtual time
    """

    def __init__(
        self,
        balloon: Balloon,
        *,
        inflate: HostTeller,
        deflate: HostTeller,
        hinting: npt.NDArray[Any],
        freed: Notifier,
        costs: GuestCosts | None = None,
    ) -> None:
        self.balloon: Final = balloon
        self._state = balloon.state[0]
        self._inflate = inflate
        self._deflate = deflate
        self._counts = hinting[0]
        self._freed = freed
        self._costs = costs
        self._balloon_lock = trio.Lock()

    async def follow_target(self, changed: Notifier) -> None:
        """Keep to the target for ever; `changed` is notified when the host has set another."""
        began_s: float | None = None
        while True:  # To wait, or to take the lock, is a checkpoint.
            missing = self.balloon.towards_target()
            if missing == 0 or not self._inflate.driver.running:
                if missing == 0 and began_s is not None:
                    self._count_reached(trio.current_time() - began_s)
                    began_s = None
                await changed.wait_notified()
                continue
            if began_s is None:
                began_s = trio.current_time()
            if missing > 0:
                await self._fill(missing)
            else:
                await self._leak(-missing)
            self.balloon.write_actual()

    def _count_reached(self, after_s: float) -> None:
        self._state["reached"] += 1
        longest_ns = max(int(self._state["follow_ns_max"]), round(after_s * 1e9))
        self._state["follow_ns_max"] = longest_ns

    async def serve_shortages(
        self, shortages: npt.NDArray[Any], short: Notifier, reliefs: Sequence[Notifier]
    ) -> None:
        """Give 256 pages back whenever a vCPU is out of memory, for ever.

        shortages: SHORTAGE[nr_cpus]; `short` is notified after a vCPU has asked, and its notifier
        among `reliefs` when it has been answered.
        """
        while True:
            await short.wait_notified()
            for cpu in range(len(shortages)):
                asked = int(shortages[cpu]["asked"])
                if asked == shortages[cpu]["answered"]:
                    continue
                self._state["oom_calls"] += 1
                self._state["oom_pages"] += await self._leak(OOM_PAGES)
                self.balloon.write_actual()
                shortages[cpu]["answered"] = asked
                reliefs[cpu].notify()

    def reset(self) -> None:
        """The device has been stopped: whatever waits for it ends."""
        self._inflate.reset()
        self._deflate.reset()

    # What the host was told of, it may be about to discard or to forget: it is waited for, whatever
    # happens here.  That ends by itself, acknowledged or with the device reset.

    async def _fill(self, pages: int) -> None:
        """One batch into the balloon (fill_balloon)."""
        taken = self.balloon.take(pages)
        if len(taken) < min(pages, PFNS_MAX):
            self._state["shortfalls"] += 1
            await trio.sleep(_SHORT_S)
        if not len(taken):
            return
        async with self._balloon_lock:
            self.balloon.enqueue(taken)
            with trio.CancelScope(shield=True):
                await pay(self._costs, reports=1)
                told = await self._inflate.tell(taken)
        if told:
            self._state["inflated_pages"] += len(taken)
            self._counts["reports"] += 1
            self._counts["blocks"] += len(taken)
            self._counts["claimed_bytes"] += len(taken) * PAGE_SIZE

    async def _leak(self, pages: int) -> int:
        """One batch out of the balloon (leak_balloon); how many pages."""
        async with self._balloon_lock:
            pfns = self.balloon.dequeue(pages)
            if len(pfns):
                with trio.CancelScope(shield=True):
                    await pay(self._costs, reports=1)
                    await self._deflate.tell(pfns)
                self.balloon.release(pfns)
                self._state["deflated_pages"] += len(pfns)
                self._pass_doorbell_on()
        return len(pfns)

    def _pass_doorbell_on(self) -> None:
        """What vCPUs do after a batch of frees."""
        kernel = self.balloon.mm.kernel[0]
        if kernel["doorbell"]:
            kernel["doorbell"] = 0
            self._freed.notify()
