"""ageing: hours of allocations of mixed sizes and lifetimes, and what is left of the large blocks.

Blocks are born at an even rate and live for a short, a middling or a long time, drawn at birth;
half of each period is busy and half quiet.  Small orders are far more frequent than large ones,
and one block of ten cannot be moved, as in kernel traces.  So few blocks that live long come to
lie among many that do not, and hold large blocks apart: the fragmentation that M. Gorman and
A. Whitcroft describe (The what, the why and the where to of anti-fragmentation, OLS 2006).  A
mechanism takes part in it: it decides where in its list a free block waits to be allocated.

Free blocks of each order are counted over the time; what is reported depends on the large ones.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.guest.mm.layout import MAX_ORDER, NR_ORDERS, PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.workloads.ageing_kernels import age_ticks, free_ticks
from emulator.workloads.layout import (
    AGEING,
    AGEING_BLOCK,
    FREE_BLOCKS,
    NO_SLOT,
    SHARE_BITS,
)
from emulator.workloads.workload import Outcome

_TICKS_PER_S: Final = 10
_TICKS_AT_ONCE: Final = 10
_ROWS: Final = 241
_NOT_YET: Final = -1.0
_LIFETIME_S_MAX: Final = 7 * 86400.0  # There is a word for each tick of twice as long.
_LARGE_ORDER: Final = 9  # A pageblock: what is reported unless somebody changes it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ageing:
    """Parameters; `rate` is that of the guest, and births fall on ticks of 100 ms."""

    kind: ClassVar[str] = "ageing"
    compared: ClassVar[Mapping[str, str]] = {"free_from_order_9_bytes": "more"}
    duration_s: float = 3 * 3600.0
    period_s: float = 3600.0  # half of it busy, half quiet
    rate_blocks_per_s: float = 1280.0  # born while it is busy
    quiet: float = 0.25  # of that rate while it is quiet
    order_max: int = 6
    short_s: float = 1.0  # mean lifetimes
    medium_s: float = 60.0
    long_s: float = 1200.0
    medium_share: float = 0.09  # of all that are born; the rest is short
    long_share: float = 0.01
    idle_s: float = 60.0  # after all was freed

    def __post_init__(self) -> None:
        if not 0 <= self.order_max <= MAX_ORDER:
            raise ValueError(f"order_max: {self.order_max} is not one of 0 to {MAX_ORDER}")
        if not 0 <= self.quiet <= 1:
            raise ValueError(f"quiet: {self.quiet} is not one of 0 to 1")
        if min(self.medium_share, self.long_share) < 0 or self.medium_share + self.long_share > 1:
            raise ValueError("medium_share: with long_share, at least 0 and at most 1 in sum")
        for name in ("duration", "period", "short", "medium", "long"):
            if getattr(self, f"{name}_s") < 1 / _TICKS_PER_S:
                raise ValueError(f"{name}: must be a tenth of a second or more")
        if max(self.short_s, self.medium_s, self.long_s) > _LIFETIME_S_MAX:
            raise ValueError("long: a mean lifetime, as short and medium, must be 7 days or less")
        if self.rate_blocks_per_s <= 0:
            raise ValueError("rate: must be above 0")
        if self.idle_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Where the first vCPU counts the free blocks."""
        rows = np.zeros(_ROWS, FREE_BLOCKS)
        rows["time_s"] = _NOT_YET
        return {"free_blocks": rows}

    def rehearsal(self) -> "Ageing":
        """A few seconds."""
        return Ageing(duration_s=2.0, period_s=2.0, long_s=2.0, medium_s=1.0, idle_s=3.0)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Busy and quiet in turns, then all is freed, then idle."""
        life = _Life(self, vcpu, arrays["free_blocks"])
        await vcpu.barrier()
        life.begin()
        await vcpu.barrier()  # Nobody is born before that.
        half, left = self.period_s / 2, self.duration_s
        for number in itertools.count():
            busy = number % 2 == 0
            vcpu.phase(f"{'busy' if busy else 'quiet'} {number // 2 + 1}")
            await life.live(min(half, left), 1.0 if busy else self.quiet)
            left -= half
            if left <= 0:
                break
        await vcpu.barrier()
        life.end()
        await vcpu.barrier()  # Nobody frees before that.
        vcpu.phase("free")
        await life.free_all()
        await vcpu.barrier()
        vcpu.phase("idle")
        await vcpu.sleep(self.idle_s)

    def figures(self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Free blocks of each order as the ageing ends, and over the time (`free_blocks`)."""
        rows = arrays["free_blocks"]
        rows = rows[rows["time_s"] != _NOT_YET]
        if not len(rows):
            return {"aged_s": None}
        last = rows[-1]["blocks"]
        pages = last << np.arange(NR_ORDERS)
        return {
            "aged_s": float(rows[-1]["time_s"]),
            "free_bytes": int(pages.sum()) * PAGE_SIZE,
            "free_from_order_9_bytes": int(pages[_LARGE_ORDER:].sum()) * PAGE_SIZE,
            **{f"free_blocks_of_order_{order}": int(n) for order, n in enumerate(last)},
            "free_blocks": {
                "time_s": rows["time_s"].tolist(),
                **{f"order_{o}": rows["blocks"][:, o].tolist() for o in range(NR_ORDERS)},
            },
        }


class _Life:
    """One vCPU's blocks."""

    def __init__(self, ageing: Ageing, vcpu: Vcpu, rows: npt.NDArray[Any]) -> None:
        self._ageing = ageing
        self._vcpu = vcpu
        self._rows = rows if vcpu.index == 0 else rows[:0]
        lifetimes = (ageing.short_s, ageing.medium_s, ageing.long_s)
        ticks = np.array([max(1, round(s * _TICKS_PER_S)) for s in lifetimes])
        self._wheel = np.full(2 * int(ticks.max()) + 2, NO_SLOT, np.int32)
        self._blocks = np.zeros(int(vcpu.mm.kernel[0]["nr_pages"]) // vcpu.nr_cpus, AGEING_BLOCK)
        self._blocks["next"] = np.arange(1, len(self._blocks) + 1)
        self._blocks["next"][-1] = NO_SLOT
        self._state = np.zeros(1, AGEING)
        short = 1.0 - ageing.medium_share - ageing.long_share
        self._state[0]["share"] = np.cumsum([short, ageing.medium_share, 0]) * (1 << SHARE_BITS)
        self._state[0]["ticks"] = ticks
        self._state[0]["order_max"] = ageing.order_max
        self._state[0]["random"] = vcpu.random_state
        self._tick = 1
        self._began_s = 0.0

    def begin(self) -> None:
        self._began_s = self._vcpu.clock.now_s()
        self._count()

    async def live(self, seconds: float, of_rate: float) -> None:
        """Age for so long, with births at a part of the rate."""
        per_s = self._ageing.rate_blocks_per_s * of_rate / self._vcpu.nr_cpus
        self._state[0]["per_tick"] = round(per_s / _TICKS_PER_S)
        ticks = round(seconds * _TICKS_PER_S)
        await self._vcpu.work(self._age, ticks, at_once=_TICKS_AT_ONCE, per_s=_TICKS_PER_S)
        self._tick += ticks

    def end(self) -> None:
        """Count for the last time."""
        self._count()
        self._rows = self._rows[:0]

    async def free_all(self) -> None:
        """Whatever lives still."""
        await self._vcpu.work(self._free, len(self._wheel), at_once=len(self._wheel) // 16 + 1)

    def _age(self, done: int, count: int) -> int:
        vcpu, own = self._vcpu, (self._blocks, self._wheel, self._state)
        aged = int(age_ticks(vcpu.mm, vcpu.ram, vcpu.index, *own, self._tick + done, count))
        if len(self._rows) > 1:
            now_s = self._vcpu.clock.now_s() - self._began_s
            if now_s >= (_ROWS - len(self._rows)) / (_ROWS - 1) * self._ageing.duration_s:
                self._count()
        return aged

    def _free(self, done: int, count: int) -> int:
        vcpu, own = self._vcpu, (self._blocks, self._wheel, self._state)
        return int(free_ticks(vcpu.mm, vcpu.ram, vcpu.index, *own, self._tick + done, count))

    def _count(self) -> None:
        """Write the next row, if this vCPU counts."""
        if len(self._rows):
            self._rows[0]["blocks"] = self._vcpu.mm.zones["nr_free"].sum(axis=0)
            self._rows[0]["time_s"] = self._vcpu.clock.now_s() - self._began_s
            self._rows = self._rows[1:]
