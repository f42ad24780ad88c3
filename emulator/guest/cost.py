"""What a guest pays in virtual time, from what its actors have counted (`[cost]`).

A vCPU's work is done in an instant, a batch at a time.  Then it waits as long as its pace says, and
then as long as it owes for what happened meanwhile (`Bill`):

    faults on pages that the host had nothing behind: an exit, and what the host then does
    waits for a zone's lock while the hinting task holds it
    interruptions for each discard: the host flushes the TLBs of running vCPUs
    its share of the hinting task's CPU time: that task has no processor of its own

The hinting task waits as long as its holds of the lock took, and for an exit a report.  What vCPUs
do to each other, and the price of an allocation itself, is in the workload's pace already.

The wait for the lock is its expectation, not a draw: acquisitions come at a rate r while the task
holds the lock for h, again and again, so that a vCPU's first one within a hold waits
`h - (1 - exp(-r h)) / r` (exponential gaps).  So the same seed gives the same run, to the byte.

Not modelled: TLB misses after the host's huge pages were split, khugepaged making them whole
again, and the hinting task waiting for vCPUs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.ram import HUGE_PAGES
from emulator.config.cost import CostConfig
from emulator.guest.histogram import BUCKET_MIDDLES
from emulator.guest.mm.views import GuestMemory, total


@dataclass(frozen=True, slots=True, kw_only=True)
class VcpusPaid:
    """Seconds of all vCPUs together, the wait for locks apart (`ACTOR.lock_wait_ns`)."""

    fault_s: float  # on faults of pages that the host had nothing behind
    interrupted_s: float  # by discards
    displaced_s: float  # while the hinting task ran on their processors


class GuestCosts:
    """The prices of one guest, and what has been paid.

    discards: how often so far the host has taken memory away.
    """

    def __init__(self, mm: GuestMemory, prices: CostConfig, discards: Callable[[], int]) -> None:
        kernel = mm.kernel[0]
        kernel["priced"] = 1
        kernel["lock_ns"] = prices.lock_s * 1e9
        kernel["list_move_ns"] = prices.list_move_s * 1e9
        kernel["list_step_ns"] = prices.list_step_s * 1e9
        mm.zones["list_moves"] = mm.zones["list_steps"] = 0  # Bringing the guest up is not charged.
        self.prices: Final = prices
        self.discards: Final = discards
        self.nr_cpus: Final = int(kernel["nr_cpus"])
        self.actors: Final = mm.actors[: self.nr_cpus]
        self._task = mm.actors[self.nr_cpus]
        self._held_ns = mm.actors["lock_held_ns"][self.nr_cpus :]
        self._task_held_ns = 0
        self._holds_at_ns, self._holds = -1, np.zeros(0, np.int64)
        self.task_cpu_s = 0.0  # of the hinting task, so far
        self.fault_s = self.interrupted_s = self.displaced_s = 0.0  # As in VcpusPaid, so far.

    def charge_task(self, reports: int = 0) -> float:
        """CPU time of the hinting task for `reports`, and for the lock since it was charged last,
        s."""
        held_ns = self._held_ns.item()
        spent_s = (held_ns - self._task_held_ns) / 1e9 + reports * self.prices.exit_s
        self._task_held_ns = held_ns
        self.task_cpu_s += spent_s
        return spent_s

    def paid_s(self) -> VcpusPaid:
        """What the vCPUs have paid so far."""
        return VcpusPaid(
            fault_s=self.fault_s,
            interrupted_s=self.interrupted_s,
            displaced_s=self.displaced_s,
        )

    def task_holds(self) -> npt.NDArray[np.int64]:
        """Histogram of the hinting task's holds of any zone's lock, so far: a copy, and the same
        one as long as there was no other hold."""
        held_ns = self._held_ns.item()
        if held_ns != self._holds_at_ns:
            self._holds_at_ns, self._holds = held_ns, np.array(self._task["lock_hold_ns"])
        return self._holds


class Bill:
    """What some vCPUs owe, on average, for the time since `begin`.

    vcpus: those whose work a task does, as a slice of the guest's: one, or all in a replay.
    """

    def __init__(self, costs: GuestCosts, vcpus: slice) -> None:
        self._costs = costs
        self._actors = costs.actors[vcpus]
        self._counts = [self._actors[name] for name in ("faults", "huge_faults", "lock_takes")]
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """Owe nothing for what was before."""
        costs = self._costs
        self._began_s = now_s
        self._counted = self._count()
        self._discards = costs.discards()
        self._task_cpu_s = costs.task_cpu_s
        self._holds = costs.task_holds()

    def _count(self) -> list[int]:
        """Faults, huge ones, and how often they took a zone's lock, so far."""
        return [total(column) for column in self._counts]

    def owed_s(self, now_s: float) -> float:
        """Seconds for each of the vCPUs, since `begin` or the last call."""
        costs, prices, vcpus = self._costs, self._costs.prices, len(self._actors)
        faults, huge_faults, takes = self._counted
        discards, task_cpu_s = self._discards, self._task_cpu_s
        holds, began_s = self._holds, self._began_s
        self.begin(now_s)
        huge = (self._counted[1] - huge_faults) / vcpus
        small = (self._counted[0] - faults) / vcpus - huge * HUGE_PAGES
        fault_s = small * (prices.exit_s + prices.host_fault_s)
        fault_s += huge * (prices.exit_s + prices.host_fault_huge_s)
        interrupted_s = (self._discards - discards) * prices.flushes * prices.interruption_s
        displaced_s = (self._task_cpu_s - task_cpu_s) / costs.nr_cpus
        wait_s = 0.0
        if self._holds is not holds:
            takes_each = (self._counted[2] - takes) / vcpus
            wait_s = expected_wait_s(self._holds - holds, takes_each, now_s - began_s)
            self._actors["lock_wait_ns"] += round(wait_s * 1e9)
        costs.fault_s += fault_s * vcpus
        costs.interrupted_s += interrupted_s * vcpus
        costs.displaced_s += displaced_s * vcpus
        return float(fault_s + interrupted_s + displaced_s + wait_s)


def expected_wait_s(holds: npt.NDArray[Any], takes: float, elapsed_s: float) -> float:
    """How long one vCPU, which took the lock `takes` times in `elapsed_s`, is expected to have
    waited for these holds by another: a histogram of their lengths."""
    used = np.flatnonzero(holds)
    if len(used) == 0 or takes <= 0 or elapsed_s <= 0:
        return 0.0
    rate_per_s = takes / elapsed_s
    length_s = BUCKET_MIDDLES[used] / 1e9
    waits_s = length_s + np.expm1(-rate_per_s * length_s) / rate_per_s
    return float((holds[used] * waits_s).sum())
