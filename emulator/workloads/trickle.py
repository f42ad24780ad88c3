"""trickle: fill memory at once, free it little by little over minutes, idle.

The counterpart of memhog: where a burst of frees soon exceeds every threshold, a trickle shows
which mechanisms wait for more than there will ever be (a full array of 1000 frees, 16 bits of a
zone, 32 blocks of an order), and what they hold back when the guest idles.  Blocks are freed in
the order in which they were allocated, so that neighbours merge.
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
from emulator.workloads.layout import HELD
from emulator.workloads.workload import Outcome, pace_per_s

_PAGES_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Trickle:
    """Parameters; rates are those of the guest, over all vCPUs."""

    kind: ClassVar[str] = "trickle"
    fraction: float = 0.75  # of the memory that is free at the start
    order: int = 0  # of each block
    rate_bytes_per_s: float = 4 << 20  # of freeing
    portion_bytes: int = 64 << 10  # freed at once by a vCPU
    idle_s: float = 60.0
    fill_rate_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: {self.fraction} is not above 0 and at most 1")
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order: {self.order} is not one of 0 to {MAX_ORDER}")
        if self.rate_bytes_per_s <= 0:
            raise ValueError("rate: must be above 0")
        if self.portion_bytes < PAGE_SIZE << self.order:
            raise ValueError(
                f"portion: {self.portion_bytes} bytes hold no block of order {self.order}"
            )
        if self.idle_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Nothing."""
        return {}

    def rehearsal(self) -> "Trickle":
        """A few pages."""
        return Trickle(
            fraction=0.01,
            order=self.order,
            rate_bytes_per_s=64 << 20,
            portion_bytes=self.portion_bytes,
            idle_s=3.0,
        )

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill, free portion by portion, idle."""
        block_bytes = PAGE_SIZE << self.order
        free_pages = int(vcpu.mm.zones["free_pages"].sum())
        blocks = int(free_pages * self.fraction / vcpu.nr_cpus) >> self.order
        held = np.zeros(max(blocks, 1), HELD)
        fill_rate = self.fill_rate_bytes_per_s
        per_s = pace_per_s(
            None if fill_rate is None else fill_rate / vcpu.nr_cpus,
            block_bytes,
            virtual=bool(vcpu.mm.kernel[0]["virtual"]),
        )
        await vcpu.barrier()
        vcpu.phase("fill")
        fill = partial(_fill, vcpu, held, self.order)
        at_once = max(1, _PAGES_AT_ONCE >> self.order)
        filled = await vcpu.work(fill, blocks, at_once=at_once, per_s=per_s)
        await vcpu.barrier()
        vcpu.phase("trickle")
        await vcpu.work(
            partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held),
            filled,
            at_once=self.portion_bytes // block_bytes,
            per_s=self.rate_bytes_per_s / vcpu.nr_cpus / block_bytes,
        )
        await vcpu.barrier()
        vcpu.phase("idle")
        await vcpu.sleep(self.idle_s)

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """How much was freed little by little: all that was filled."""
        return {"trickled_bytes": outcome.pages_touched * PAGE_SIZE}


def _fill(vcpu: Vcpu, held: npt.NDArray[Any], order: int, done: int, count: int) -> int:
    return int(alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count, order))
