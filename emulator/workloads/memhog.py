"""memhog: fill a fraction of free memory, free all of it, idle; again and again.

As the numactl tool of that name, with which every series since 2018 was tried: "memhog 79g on a
80g guest" (mails 000, 001).  Each vCPU takes its share; all wait for each other before they free
and before they fill.

A hog that gets no more memory does without the rest, or, with `retry`, tries again until it has it
all: then `fill_ms` says how long who needs memory suddenly must wait for it.  Not modelled: an OOM
killer, who would end it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.guest.mm.layout import MAX_ORDER, PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.workloads.kernels import alloc_batch, free_batch
from emulator.workloads.layout import HELD, HOG_PROGRESS
from emulator.workloads.workload import Outcome, pace_per_s

_PAGES_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Memhog:
    """Parameters; `rate` is that of the guest, over all vCPUs."""

    kind: ClassVar[str] = "memhog"
    fraction: float = 0.95  # of the memory that is free at the start
    iterations: int = 2
    idle_s: float = 10.0
    delay_s: float = 0.0  # before the first
    order: int = 0  # of each block: 9 for a process with transparent huge pages
    rate_bytes_per_s: float | None = None  # of filling
    retry_s: float = 0.0  # how long after an allocation failed it tries again; 0: never
    tasks: int | None = None  # how many vCPUs hog; None: all

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: {self.fraction} is not above 0 and at most 1")
        if not 1 <= self.iterations <= 20:
            raise ValueError(f"iterations: {self.iterations} is not one of 1 to 20")
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")
        if self.tasks is not None and self.tasks < 1:
            raise ValueError(f"tasks: {self.tasks} is not at least 1")
        if self.idle_s < 0 or self.delay_s < 0 or self.retry_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What the vCPUs measure."""
        return {"progress": np.zeros(scenario.guest.vcpus, HOG_PROGRESS)}

    def rehearsal(self) -> "Memhog":
        """A few pages."""
        return Memhog(fraction=0.01, iterations=1, idle_s=3.0, order=self.order)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill, free, idle."""
        tasks = vcpu.nr_cpus if self.tasks is None else min(self.tasks, vcpu.nr_cpus)
        free_pages = int(vcpu.mm.zones["free_pages"].sum())
        blocks = int(free_pages * self.fraction / tasks) >> self.order
        if vcpu.index >= tasks:
            blocks = 0
        held = np.zeros(max(blocks, 1), HELD)
        progress = arrays["progress"][vcpu.index]
        per_s = pace_per_s(
            None if self.rate_bytes_per_s is None else self.rate_bytes_per_s / tasks,
            PAGE_SIZE << self.order,
            virtual=bool(vcpu.mm.kernel[0]["virtual"]),
        )
        at_once = max(1, _PAGES_AT_ONCE >> self.order)
        empty = partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held)
        await vcpu.barrier()
        if self.delay_s:
            vcpu.phase("start")
            await vcpu.sleep(self.delay_s)
        for iteration in range(1, self.iterations + 1):
            vcpu.phase(f"fill {iteration}")
            began_s = vcpu.clock.now_s()
            filled = 0
            while True:
                fill = partial(_fill, vcpu, held[filled:], self.order)
                filled += await vcpu.work(fill, blocks - filled, at_once=at_once, per_s=per_s)
                if filled == blocks or not self.retry_s:
                    break
                await vcpu.sleep(self.retry_s)
            filled_ns = round((vcpu.clock.now_s() - began_s) * 1e9)
            progress["fill_ns_max"] = max(int(progress["fill_ns_max"]), filled_ns)
            await vcpu.barrier()
            vcpu.phase(f"free {iteration}")
            await vcpu.work(empty, filled, at_once=at_once)
            await vcpu.barrier()
            vcpu.phase(f"idle {iteration}")
            await vcpu.sleep(self.idle_s)

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """How much it filled; with `retry`, how long until the slowest vCPU had all it wanted."""
        filled_bytes = outcome.pages_touched * PAGE_SIZE
        if not self.retry_s:
            return {"filled_bytes": filled_bytes}
        fill_ms = int(arrays["progress"]["fill_ns_max"].max()) / 1e6
        return {"filled_bytes": filled_bytes, "fill_ms": fill_ms}


def _fill(vcpu: Vcpu, held: npt.NDArray[Any], order: int, done: int, count: int) -> int:
    return int(alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count, order))
