"""The guest's clock: real, or the virtual one of a run in virtual time.

Kernels read the same clock (`lock_kernels.now`): real time from CLOCK_MONOTONIC, virtual time from
a word that is set here, before a kernel is called.
"""

import time
from typing import Any

import numpy.typing as npt
import trio

from emulator.guest.virtual_time import sleep_until


class Clock:
    """`kernel`: KERNEL[1] of the guest, whose `virtual` says which clock it is."""

    def __init__(self, kernel: npt.NDArray[Any]) -> None:
        self._now_ns = kernel["virtual_now_ns"]
        self._virtual = bool(kernel[0]["virtual"])

    def now_s(self) -> float:
        """Seconds, on the scale of every time in the guest's memory."""
        if not self._virtual:
            return time.monotonic()
        now_s = trio.current_time()
        self._now_ns[0] = round(now_s * 1e9)
        return now_s

    def deadline(self, at_s: float | None) -> float:
        """The same instant on trio's scale; None is never."""
        if at_s is None:
            return float("inf")
        if self._virtual:
            return at_s
        return trio.current_time() + (at_s - self.now_s())

    async def sleep_until(self, at_s: float) -> None:
        """Until `at_s` on the guest's clock."""
        await sleep_until(self.deadline(at_s))
        self.now_s()
