"""A mechanism that lies: it reports memory that is in use, for the oracle to find.

Given as FILE:CLASS, as a user's own mechanism is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry, Report, Wait
from emulator.guest.hinting.layout import BATCH
from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.layout import ALLOCATED
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """Reports the first `capacity` blocks in use, every `delay`; `shift` moves them elsewhere."""

    name: ClassVar[str] = "liar"
    delay_s: float = 0.1
    capacity: int = 32
    shift: int = 0  # pages

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """None."""
        return {}

    def hooks(self, arrays: Mapping[str, Any]) -> NoHooks:
        """None."""
        return NoHooks()

    def start(self, mm: GuestMemory, actor: int) -> "LiarCycle":
        """Begin to lie."""
        return LiarCycle(self, mm)


class LiarCycle:
    """One guest's lies."""

    def __init__(self, liar: Liar, mm: GuestMemory) -> None:
        self._liar = liar
        self._mm = mm
        self._due_s = 0.0

    def step(self, now_s: float) -> Wait | Report:
        """Report every `delay_s`."""
        if now_s < self._due_s:
            return Wait(self._due_s)
        self._due_s = now_s + self._liar.delay_s
        pages = self._mm.pages[: int(self._mm.kernel[0]["nr_pages"])]
        used = np.flatnonzero(pages["kind"] == ALLOCATED)[: self._liar.capacity]
        if not len(used):
            return Wait(self._due_s)
        batch = np.zeros(len(used), BATCH)
        batch["pfn"], batch["order"] = used + self._liar.shift, pages["order"][used]
        return Report(batch)

    def drain(self, reported: bool, now_s: float) -> None:
        """Nothing was isolated."""
