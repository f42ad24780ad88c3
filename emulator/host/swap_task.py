"""Keeps a host within its memory: swaps pages out when guests hold more, and has them wait."""

from collections.abc import Sequence
from typing import Final

import trio

from devices.memory.ram import PAGE_SIZE
from devices.virtio.notifier import Notifier
from emulator.host.swap import Swap

_PAGES_AT_ONCE: Final = 256  # 1 MiB in a row in the swap (SWAPFILE_CLUSTER).


class SwapTask:
    """`reliefs`: wake the actors of all guests;  `write_bytes_per_s`: to the swap."""

    def __init__(
        self, swap: Swap, reliefs: Sequence[Notifier], *, write_bytes_per_s: float
    ) -> None:
        self._swap = swap
        self._reliefs = reliefs
        self._bytes_per_s = write_bytes_per_s
        self._lock = trio.Lock()

    async def run(self, pressures: Sequence[Notifier]) -> None:
        """For ever; each of `pressures` is notified when an actor of a guest has asked."""
        async with trio.open_nursery() as nursery:
            for pressure in pressures:
                nursery.start_soon(self._follow, pressure)

    async def _follow(self, pressure: Notifier) -> None:
        while True:
            await self.balance()
            await pressure.wait_notified()

    async def balance(self) -> None:
        """Swap out until the host is within its limit, or cannot be."""
        async with self._lock:
            questions = self._swap.questions()
            while (over := self._swap.over_pages()) > 0:
                self._swap.allow()
                taken = self._swap.swap_out(min(over, _PAGES_AT_ONCE))
                if not taken:
                    break
                await trio.sleep(taken * PAGE_SIZE / self._bytes_per_s)
            self._swap.allow()
            for actor in self._swap.answer(questions):
                self._reliefs[actor].notify()
