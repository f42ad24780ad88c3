"""page_fault1 of will-it-scale: each vCPU touches 128 MiB of single pages and frees them at once.

tests/page_fault1.c: map 128 MiB, write one byte to every page in ascending order, unmap, for ever.
Its figure is pages touched per second, the sum over all tasks; here also per vCPU.  main.c drops
what the first 6 seconds bring, in which memory is touched for the first time: `warm_up`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.workloads.kernels import alloc_batch, free_batch
from emulator.workloads.layout import FAULT_PROGRESS, HELD
from emulator.workloads.workload import Outcome, pace_per_s

_PAGES_AT_ONCE: Final = 4096
_MEASURED: Final = "page_fault1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault1:
    """Parameters; `rate` is that of each vCPU."""

    kind: ClassVar[str] = "page_fault1"
    compared: ClassVar[Mapping[str, str]] = {"pages_per_s": "more"}
    duration_s: float = 10.0  # of what is measured, after
    warm_up_s: float = 0.0
    size_bytes: int = 128 << 20
    rate_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.duration_s <= 0:
            raise ValueError("duration: must be above 0")
        if self.warm_up_s < 0:
            raise ValueError("warm_up: a time cannot be below 0")
        if self.size_bytes < PAGE_SIZE or self.size_bytes % PAGE_SIZE:
            raise ValueError(f"size: {self.size_bytes} bytes are not whole pages")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What the vCPUs count; ConfigError where their memory does not fit."""
        guest = scenario.guest
        if self.size_bytes * guest.vcpus > guest.memory_bytes * 0.9:
            raise ConfigError(
                f"workload.size: {guest.vcpus} vCPUs of {self.size_bytes >> 20}MiB do not fit in "
                f"{guest.memory_bytes >> 20}MiB; use --memory "
                f"{-(-int(self.size_bytes * guest.vcpus / 0.8) >> 22 << 2)}MiB or a smaller size"
            )
        return {"progress": np.zeros(guest.vcpus, FAULT_PROGRESS)}

    def rehearsal(self) -> "PageFault1":
        """A few pages."""
        return PageFault1(duration_s=0.01, size_bytes=1 << 20)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Touch and free until the time is over."""
        progress = arrays["progress"][vcpu.index]
        pages = self.size_bytes // PAGE_SIZE
        held = np.zeros(pages, HELD)
        virtual = bool(vcpu.mm.kernel[0]["virtual"])
        per_s = pace_per_s(self.rate_bytes_per_s, PAGE_SIZE, virtual=virtual)
        touch = partial(_touch, vcpu, held)
        free = partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held)
        await vcpu.barrier()
        lengths_s = {"warm up": self.warm_up_s, _MEASURED: self.duration_s}
        for phase, length_s in lengths_s.items():
            if not length_s:
                continue
            vcpu.phase(phase)
            began_s = now_s = vcpu.clock.now_s()
            while now_s < began_s + length_s:
                touched = await vcpu.work(touch, pages, at_once=_PAGES_AT_ONCE, per_s=per_s)
                await vcpu.work(free, touched, at_once=pages)
                if touched < pages:
                    await vcpu.sleep(0.001)  # Out of memory: others hold it, and will free it.
                now_s = vcpu.clock.now_s()
                if phase == _MEASURED:
                    progress["pages"] += touched
                    progress["elapsed_s"] = now_s - began_s

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """Pages a second, and per vCPU, of those that came to measure any."""
        measured = arrays["progress"][arrays["progress"]["elapsed_s"] > 0]
        per_s = float((measured["pages"] / measured["elapsed_s"]).sum()) if len(measured) else None
        return {
            "pages_per_s": per_s,
            "pages_per_s_per_vcpu": None if per_s is None else per_s / outcome.vcpus,
        }


def _touch(vcpu: Vcpu, held: npt.NDArray[Any], done: int, count: int) -> int:
    return int(alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count, 0))
