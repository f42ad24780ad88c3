"""churn: allocations and frees of mixed orders and migratetypes around a level.

Small orders are more frequent than large ones and nine of ten allocations are movable, so that
memory fragments as it does in a system that has been up for a while.
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
from emulator.workloads.kernels import churn_batch, free_batch
from emulator.workloads.layout import CHURN, HELD
from emulator.workloads.workload import Outcome, pace_per_s

_OPERATIONS_AT_ONCE: Final = 4096
_OPERATIONS_MAX: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """Parameters; `rate` is that of each vCPU, counted as one page an operation."""

    kind: ClassVar[str] = "churn"
    duration_s: float = 10.0
    level: float = 0.5  # of the memory that is free at the start
    order_max: int = 4
    idle_s: float = 5.0  # after all was freed
    rate_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level <= 0.95:
            raise ValueError(f"level: {self.level} is not above 0 and at most 0.95")
        if not 0 <= self.order_max <= MAX_ORDER:
            raise ValueError(f"order_max: {self.order_max} is not one of 0 to {MAX_ORDER}")
        if self.duration_s <= 0 or self.idle_s < 0:
            raise ValueError("duration: must be above 0, and idle not below")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Nothing."""
        return {}

    def rehearsal(self) -> "Churn":
        """A few pages."""
        return Churn(duration_s=0.01, level=0.01, order_max=self.order_max, idle_s=3.0)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Churn until the time is over, free all, idle."""
        level_pages = int(int(vcpu.mm.zones["free_pages"].sum()) * self.level / vcpu.nr_cpus)
        held = np.zeros(2 * level_pages + 64, HELD)
        state = np.zeros(1, CHURN)
        state["random"] = vcpu.random_state
        state["level_pages"] = level_pages
        state["order_max"] = self.order_max
        virtual = bool(vcpu.mm.kernel[0]["virtual"])
        per_s = pace_per_s(self.rate_bytes_per_s, PAGE_SIZE, virtual=virtual)
        await vcpu.barrier()
        vcpu.phase("churn")
        await vcpu.work(
            partial(_churn, vcpu, held, state),
            _OPERATIONS_MAX,
            at_once=_OPERATIONS_AT_ONCE,
            per_s=per_s,
            until_s=vcpu.clock.now_s() + self.duration_s,
        )
        vcpu.phase("free")
        free = partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held)
        await vcpu.work(free, int(state[0]["held"]), at_once=_OPERATIONS_AT_ONCE)
        await vcpu.barrier()
        vcpu.phase("idle")
        await vcpu.sleep(self.idle_s)

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """Operations a second of one vCPU, idle time included."""
        per_s = outcome.operations / outcome.elapsed_s if outcome.elapsed_s else None
        return {"operations_per_s_per_vcpu": None if per_s is None else per_s / outcome.vcpus}


def _churn(
    vcpu: Vcpu, held: npt.NDArray[Any], state: npt.NDArray[Any], done: int, count: int
) -> int:
    return int(churn_batch(vcpu.mm, vcpu.ram, vcpu.index, held, state, count))
