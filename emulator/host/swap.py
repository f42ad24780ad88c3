"""A host's limit on the memory of all its guests, and the swap behind it, without I/O.

    over_pages()            how many pages more are resident than may be
    swap_out(pages_max)     writes the oldest ones to the swap; fewer where that is full

A page is resident from its first access on, until it is swapped out or discarded.  Which are the
oldest a clock tells that goes round over all guests.  What is discarded while it is swapped out
gives its place in the swap back; what comes back from the swap leaves no copy there.

Not modelled: the processor's time for it and the flushes of TLBs, a queue in front of the disk's
reads, pages that are equal sharing one (KSM), and the host's own memory.  A host whose swap is full
would end a guest; here its limit is passed, which is counted.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.ram import PAGE_SIZE, GuestRam, SwapView
from emulator.host.swap_kernels import swap_out_old

_ROUNDS_MAX: Final = 2  # In the first one all may be young.


def resident_pages(swap: SwapView, account: Any) -> int:
    """Of a guest that the host can swap out, from what the host has counted (`swap_layout`).

    account: a record of HOST
    """
    traffic = swap.traffic
    came = int(traffic["faulted_pages"].sum() + traffic["swapped_in_pages"].sum())
    gone = int(account["swapped_out_pages"]) + int(account["returned_bytes"]) // PAGE_SIZE
    return came - gone


class Swap:
    """Of one host.

    rams:      of all guests, which the host can swap out
    accounts:  HOST[1] of each
    """

    def __init__(
        self,
        rams: Sequence[GuestRam],
        accounts: Sequence[npt.NDArray[Any]],
        *,
        memory_bytes: int,
        swap_bytes: int,
    ) -> None:
        self._views = [ram.view() for ram in rams]
        self._swaps = [ram.swap_view() for ram in rams]
        self._controls = [ram.swap_control()[0] for ram in rams]
        self._accounts = [account[0] for account in accounts]
        self._limit_pages: Final = memory_bytes // PAGE_SIZE
        self._room_pages: Final = swap_bytes // PAGE_SIZE
        self._actors = sum(len(swap.traffic) for swap in self._swaps)
        self._guest = self._page = 0  # Where the clock's hand is.
        self.allow()

    def over_pages(self) -> int:
        """How many pages more are resident than the limit allows; below 0 if there is room."""
        each = zip(self._swaps, self._accounts, strict=True)
        return sum(resident_pages(swap, account) for swap, account in each) - self._limit_pages

    def used_pages(self) -> int:
        """Pages in the swap."""
        used = 0
        for swap, account in zip(self._swaps, self._accounts, strict=True):
            used += int(account["swapped_out_pages"]) - int(account["swap_dropped_pages"])
            used -= int(swap.traffic["swapped_in_pages"].sum())
        return used

    def swap_out(self, pages_max: int) -> int:
        """Swap out up to so many pages; how many, 0 only if no more can be: that is counted."""
        wanted = min(pages_max, self._room_pages - self.used_pages())
        taken = 0
        for _ in range(_ROUNDS_MAX * len(self._views) + 1):
            if taken >= wanted:
                break
            view, account = self._views[self._guest], self._accounts[self._guest]
            self._page, found = swap_out_old(
                view.words, view.huge, view.swap_marks(), self._page, wanted - taken
            )
            account["swapped_out_pages"] += found
            taken += found
            if self._page == len(view.words):
                self._guest, self._page = (self._guest + 1) % len(self._views), 0
        if taken == 0:
            for account in self._accounts:
                account["swap_full"] += 1
        return taken

    def allow(self) -> None:
        """Say how much actors may add before they ask: all of them half of what there is."""
        stock = max(0, -self.over_pages()) // (2 * self._actors)
        for control in self._controls:
            control["stock_pages"] = stock

    def questions(self) -> list[npt.NDArray[np.int64]]:
        """How often each actor has asked so far: of each guest."""
        return [swap.traffic["asked"].copy() for swap in self._swaps]

    def answer(self, questions: Sequence[npt.NDArray[np.int64]]) -> list[int]:
        """Let those go on who had asked; which actors these are, counted over all guests."""
        waiting, first = [], 0
        for swap, asked in zip(self._swaps, questions, strict=True):
            new = np.flatnonzero(swap.traffic["answered"] != asked)
            swap.traffic["answered"][new] = asked[new]
            waiting += (first + new).tolist()
            first += len(asked)
        return waiting
