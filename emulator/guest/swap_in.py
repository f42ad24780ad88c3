"""What an actor of the guest waits for when its host has less memory than its guests hold.

For each page that comes back from the swap, a read; and when it has added pages, until the host has
made room for them: as a task waits that is charged for a page beyond its memory cgroup's limit.
Both take time under either launcher, since accounted RAM has no disk behind it that would take it.

An actor asks when it has added more than `SWAP_CONTROL.stock_pages`, as memory cgroups charge per
CPU in advance; so the limit is passed by a batch of each actor at most.
"""

from typing import Any, Final

import numpy.typing as npt

from devices.virtio.notifier import Notifier
from emulator.guest.clock import Clock
from emulator.guest.mm.views import total


class SwapIn:
    """Of actor `actor`.

    traffic:   SWAP_TRAFFIC of all actors
    control:   SWAP_CONTROL[1]
    read_s:    for a page
    pressure:  wakes the host
    relief:    is how that wakes this actor
    """

    def __init__(
        self,
        traffic: npt.NDArray[Any],
        control: npt.NDArray[Any],
        actor: int,
        clock: Clock,
        *,
        read_s: float,
        pressure: Notifier,
        relief: Notifier,
    ) -> None:
        self._traffic = traffic
        self._record = traffic[actor]
        self._stock_pages = control["stock_pages"]
        self._clock = clock
        self._read_s: Final = read_s
        self._pressure = pressure
        self._relief = relief
        self._count(slice(actor, actor + 1))

    def count_all(self) -> None:
        """From here on this actor's task does what all vCPUs do, and waits for what one of them
        would have to on average."""
        self._count(slice(None, -1))

    def _count(self, actors: slice) -> None:
        self._faulted = self._traffic["faulted_pages"][actors]
        self._swapped_in = self._traffic["swapped_in_pages"][actors]
        self._told_pages = self._read_pages = 0

    async def settle(self) -> float:
        """After a batch: wait for what it had read, and for the host.  Returns the seconds."""
        record = self._record
        read_pages = total(self._swapped_in)
        added_pages = total(self._faulted) + read_pages
        asks = added_pages - self._told_pages > self._stock_pages.item()
        if not asks and read_pages == self._read_pages:
            return 0.0
        began_s = self._clock.now_s()
        owed_s = (read_pages - self._read_pages) * self._read_s / len(self._faulted)
        self._read_pages = read_pages
        if asks:
            self._told_pages = added_pages
            record["asked"] += 1
            self._pressure.notify()
        if owed_s:
            await self._clock.sleep_until(began_s + owed_s)
        while record["answered"] != record["asked"]:
            await self._relief.wait_notified()
        waited_s = self._clock.now_s() - began_s
        record["waited_ns"] += round(waited_s * 1e9)
        return waited_s
