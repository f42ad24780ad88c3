"""A vCPU: allocates and frees pages in batches of compiled work, and rests in between.

The same code runs in a process of its own, in real time, and beside others in one trio run, in
virtual time.
"""

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
import trio

from devices.memory.ram import RamView
from emulator.guest.balloon.shortage import OutOfMemory
from emulator.guest.clock import Clock
from emulator.guest.cost import Bill, GuestCosts
from emulator.guest.file_io import FileIo
from emulator.guest.layout import PHASE, PHASES_MAX
from emulator.guest.mm.layout import ACTOR_LOST, ACTOR_RUNNING
from emulator.guest.mm.page_alloc_kernels import drain_if_requested
from emulator.guest.mm.views import GuestMemory
from emulator.guest.swap_in import SwapIn

# At a barrier a vCPU looks again after a part of the time that it has waited so far, between these.
_BARRIER_POLL_PART: Final = 1 / 128
_BARRIER_POLL_S_MIN: Final = 0.001
_BARRIER_POLL_S_MAX: Final = 0.064
_SHORTAGES_MAX: Final = 64  # in a row, without a page for this vCPU: then the allocation fails


class Notifier(Protocol):
    """What wakes the hinting task."""

    def notify(self) -> None:
        """Wake it; never blocks."""


class Vcpu:
    """One vCPU at work.  `index` is its actor in `mm`; `on_phase` is called as a phase begins.

    costs: what it pays in virtual time beyond the pace of its work; None: nothing, or in real time.
    """

    def __init__(
        self,
        index: int,
        mm: GuestMemory,
        ram: RamView,
        phases: "np.ndarray[tuple[int], np.dtype[np.void]]",
        clock: Clock,
        freed: Notifier,
        *,
        seed: int,
        on_phase: Callable[[], None],
        out_of_memory: OutOfMemory | None = None,
        costs: GuestCosts | None = None,
        files: FileIo | None = None,
        swap: SwapIn | None = None,
    ) -> None:
        assert phases.dtype == PHASE
        self.index: Final = index
        self.mm: Final = mm
        self.ram: Final = ram
        self.clock: Final = clock
        self.nr_cpus: Final = int(mm.kernel[0]["nr_cpus"])
        # Different for each vCPU, never 0 (on which xorshift would stand still).
        self.random_state: Final = (
            int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) + 1
        )
        self._phases = phases
        self._phase_count = 0
        self._freed = freed
        self.files: Final = files
        self._swap = swap
        # Whom it asks when it is out of memory, in this order.
        self._helpers = [it for it in (files, out_of_memory) if it is not None]
        self._on_phase = on_phase
        self._actor = mm.actors[index]
        self._failed = mm.actors["failed_allocations"][index : index + 1]
        self._drain_requested = mm.actors["drain_requested"][index : index + 1]
        self._doorbell = mm.kernel["doorbell"]
        self._arrivals = 0
        self._costs = costs
        self._bill = None if costs is None else Bill(costs, slice(index, index + 1))

    def phase(self, name: str) -> None:
        """Write down that a phase of the workload begins now (at most PHASES_MAX of them)."""
        if self._phase_count == PHASES_MAX:
            return
        entry = self._phases[self.index * PHASES_MAX + self._phase_count]
        entry["began_ns"] = round(self.clock.now_s() * 1e9)
        entry["operations"] = self._actor["operations"]
        entry["name"] = name.encode()
        entry["used"] = 1
        self._phase_count += 1
        self._on_phase()

    def end_phases(self) -> None:
        """The last phase is over."""
        self.phase("")

    async def work(
        self,
        batch: Callable[[int, int], int],
        count: int,
        *,
        at_once: int,
        per_s: float | None = None,
        until_s: float | None = None,
    ) -> int:
        """Do `count` units, `at_once` a call: `batch(done, n)` returns how many it did.

        At most `per_s` units a second, flat out without, and later by what they cost in virtual
        time; ends early at `until_s`, or where a batch did less than it was asked to.  Returns the
        units done.

        Where an allocation failed, and dirty pages are written or a balloon gives pages back for
        that, the batch goes on.
        """
        done = shortages = 0
        began_s = self.begin_paying()
        while done < count:
            asked = min(at_once, count - done)
            failed = self._failed.item()
            got = batch(done, asked)
            done += got
            self.after_batch()
            began_s += await self.settle()
            if self._helpers and self._failed.item() > failed:
                shortages = 1 if got else shortages + 1
                short_s = self.clock.now_s()
                helped = shortages <= _SHORTAGES_MAX and await self._helped()
                waited_s = self.clock.now_s() - short_s
                began_s += 0.0 if self._bill is None else waited_s  # Its pace knows of no wait.
                if helped and got < asked:  # It is tried again: it has not failed.
                    self._failed[0] -= 1
                    continue
            if got < asked:
                await self.pay()
                break
            if per_s is None:
                await trio.lowlevel.checkpoint()
                began_s += await self.pay()
            else:
                began_s += self._owed_s()
                await self.sleep_until(began_s + done / per_s)
            if until_s is not None and self.clock.now_s() >= until_s:
                break
        if per_s is not None:
            await self.pay()  # For what happened during the last rest.
        return done

    def begin_paying(self, *, for_all: bool = False) -> float:
        """Owe nothing so far; returns the time, s.

        for_all: from here on this vCPU's task does every vCPU's work, and pays what one of them
        does on average.
        """
        if for_all and self._costs is not None:
            self._bill = Bill(self._costs, slice(None))
        if for_all and self._swap is not None:
            self._swap.count_all()
        now_s = self.clock.now_s()
        if self._bill is not None:
            self._bill.begin(now_s)
        return now_s

    async def settle(self) -> float:
        """After a batch: wait for the disks that it needed, the host's swap first.  Seconds."""
        waited_s = 0.0 if self._swap is None else await self._swap.settle()
        if self.files is not None:
            waited_s += await self.files.settle()
        return waited_s

    async def pay(self) -> float:
        """Take the time that is owed since the last payment; returns it, s."""
        owed_s = self._owed_s()
        if owed_s > 0:
            await self.sleep_until(self.clock.now_s() + owed_s)
        return owed_s

    def _owed_s(self) -> float:
        """What is owed since this was asked last; what comes while it is paid is owed then."""
        return 0.0 if self._bill is None else self._bill.owed_s(self.clock.now_s())

    async def _helped(self) -> bool:
        """Whether there may be memory now."""
        for helper in self._helpers:
            if await helper.notify():
                return True
        return False

    def after_batch(self) -> None:
        """What it owes others between two batches: pass on the doorbell, drain on demand."""
        if self.files is not None:
            self.files.pass_on()
        if self._doorbell[0]:
            # Cleared before the notification: a free after this rings again.
            self._doorbell[0] = 0
            self._freed.notify()
        if self._drain_requested[0]:
            drain_if_requested(self.mm, self.index)

    async def sleep_until(self, at_s: float) -> None:
        """Until `at_s` on the guest's clock."""
        await self.clock.sleep_until(at_s)

    async def sleep(self, seconds: float) -> None:
        """Idle, but answer requests to drain the per-CPU lists."""
        end_s = self.clock.now_s() + seconds
        while (now_s := self.clock.now_s()) < end_s:
            await self.sleep_until(min(end_s, now_s + 0.1))
            self.after_batch()

    async def barrier(self) -> None:
        """Until every vCPU that lives has come to its barrier as often as this one."""
        self._arrivals += 1
        self._actor["arrivals"] = self._arrivals
        actors = self.mm.actors[: self.nr_cpus]
        came_s = self.clock.now_s()
        while bool(
            (
                (actors["arrivals"] < self._arrivals)
                & (actors["state"] <= ACTOR_RUNNING)
                & (actors["state"] != ACTOR_LOST)
            ).any()
        ):
            self.after_batch()
            now_s = self.clock.now_s()
            poll_s = max(_BARRIER_POLL_S_MIN, (now_s - came_s) * _BARRIER_POLL_PART)
            await self.sleep_until(now_s + min(poll_s, _BARRIER_POLL_S_MAX))
        self.clock.now_s()
