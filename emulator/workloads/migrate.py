"""migrate: a guest that churns is migrated live; what the migration lost is found when it is freed.

The host sends memory in rounds (`emulator.host.migration`), under any mechanism: `off` sends all,
`page_reporting` what is left after its discards, `free_page_hint` is asked what to skip.  W. Wang
(v37) measured so, too: how long the migration takes, and how long the guest stands still.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import trio

from devices.memory.layout import (
    MIGRATION_NONE,
    MIGRATION_REQUESTED,
    MIGRATION_RESUMED,
    MIGRATION_STOPPING,
)
from emulator.config.scenario import Scenario
from emulator.guest.mm.layout import MAX_ORDER, PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.workloads.kernels import alloc_batch, churn_batch, free_batch
from emulator.workloads.layout import CHURN, HELD
from emulator.workloads.workload import Outcome, pace_per_s

_OPERATIONS_AT_ONCE: Final = 512
_OPERATIONS_MAX: Final = 1 << 62
_POLL_S: Final = 0.001
_SLICE_S: Final = 0.005  # A vCPU stops within that.


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrate:
    """Parameters; `rate` is that of each vCPU, counted as one page an operation."""

    kind: ClassVar[str] = "migrate"
    start_s: float = 2.0  # of churning, before the migration
    after_s: float = 2.0  # of churning at the destination
    warm: float = 0.95  # of the free memory is touched and freed before all else: it has content
    level: float = 0.5  # of the memory that is free at the start
    grow: float = 0.0  # What more it wants from the migration's beginning on: contention.
    order_max: int = 4
    rate_bytes_per_s: float | None = None
    bandwidth_bytes_per_s: float = 1 << 30  # of the link
    downtime_s: float = 0.4  # what is allowed
    rounds_max: int = 30

    def __post_init__(self) -> None:
        if not 0 < self.level <= 0.95:
            raise ValueError(f"level: {self.level} is not above 0 and at most 0.95")
        if not 0 <= self.grow <= 0.95 - self.level:
            raise ValueError(f"grow: {self.grow} and level {self.level} are above 0.95 in sum")
        if not 0 <= self.warm <= 1:
            raise ValueError(f"warm: {self.warm} is not between 0 and 1")
        if not 0 <= self.order_max <= MAX_ORDER:
            raise ValueError(f"order_max: {self.order_max} is not one of 0 to {MAX_ORDER}")
        if self.start_s < 0 or self.after_s < 0 or self.downtime_s < 0:
            raise ValueError("start: a time cannot be below 0")
        if self.bandwidth_bytes_per_s < 1 << 20:
            raise ValueError("bandwidth: must be at least 1MiB/s")
        if not 1 <= self.rounds_max <= 10_000:
            raise ValueError(f"rounds_max: {self.rounds_max} is not one of 1 to 10000")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Nothing."""
        return {}

    def rehearsal(self) -> "Migrate":
        """A few pages."""
        return Migrate(start_s=0.01, after_s=0.01, warm=0.01, level=0.01, order_max=self.order_max)

    @property
    def migration(self) -> "Migrate":
        """What the host is told of it."""
        return self

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Churn, be migrated, churn on, free all."""
        record = arrays["migration"][0]
        free_pages = int(vcpu.mm.zones["free_pages"].sum()) // vcpu.nr_cpus
        level_pages = int(free_pages * self.level)
        warm_pages = int(free_pages * self.warm)
        grown_pages = int(free_pages * (self.level + self.grow))
        held = np.zeros(max(2 * grown_pages, warm_pages) + 64, HELD)
        free = partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held)
        state = np.zeros(1, CHURN)
        state["random"] = vcpu.random_state
        state["level_pages"] = level_pages
        state["order_max"] = self.order_max
        churn = partial(self._churn, vcpu, held, state)
        await vcpu.barrier()
        vcpu.phase("warm")
        touch = partial(_touch, vcpu, held)
        touched = await vcpu.work(touch, warm_pages, at_once=_OPERATIONS_AT_ONCE)
        await vcpu.barrier()
        await vcpu.work(free, touched, at_once=_OPERATIONS_AT_ONCE)
        await vcpu.barrier()
        vcpu.phase("churn")
        await churn(self.start_s)
        await vcpu.barrier()
        vcpu.phase("migrate")
        if record["state"] == MIGRATION_NONE:
            record["state"] = MIGRATION_REQUESTED
        state["level_pages"] = grown_pages
        while record["state"] != MIGRATION_RESUMED:
            if record["state"] == MIGRATION_STOPPING:
                record["stopped"][vcpu.index] = 1
                await trio.sleep(_POLL_S)
            else:
                await churn(_SLICE_S)
        vcpu.clock.now_s()
        vcpu.phase("after")
        await churn(self.after_s)
        vcpu.phase("free")
        await vcpu.work(free, int(state[0]["held"]), at_once=_OPERATIONS_AT_ONCE)
        await vcpu.barrier()

    async def _churn(
        self, vcpu: Vcpu, held: npt.NDArray[Any], state: npt.NDArray[Any], for_s: float
    ) -> None:
        def batch(done: int, count: int) -> int:
            return int(churn_batch(vcpu.mm, vcpu.ram, vcpu.index, held, state, count))

        virtual = bool(vcpu.mm.kernel[0]["virtual"])
        await vcpu.work(
            batch,
            _OPERATIONS_MAX,
            at_once=_OPERATIONS_AT_ONCE,
            per_s=pace_per_s(self.rate_bytes_per_s, PAGE_SIZE, virtual=virtual),
            until_s=vcpu.clock.now_s() + for_s,
        )

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """What the host sent, and how long it took."""
        record = arrays["migration"][0]
        return {
            "completed": int(record["completed"]),
            "rounds": int(record["rounds"]),
            "sent_bytes": int(record["sent_pages"]) * PAGE_SIZE,
            "final_bytes": int(record["final_pages"]) * PAGE_SIZE,
            "zero_pages": int(record["zero_pages"]),
            "skipped_bytes": int(record["skipped_pages"]) * PAGE_SIZE,
            "migration_s": int(record["total_ns"]) / 1e9,
            "downtime_s": int(record["downtime_ns"]) / 1e9,
        }


def _touch(vcpu: Vcpu, held: npt.NDArray[Any], done: int, count: int) -> int:
    return int(alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count, 0))
