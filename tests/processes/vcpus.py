"""vCPUs as real processes on one guest in shared memory, without anything around them."""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import trio

from devices.memory.region import Region
from emulator.guest.hinting.cycle import Report
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.guest.mm.layout import ACTOR_RUNNING
from emulator.guest.mm.page_alloc_kernels import drain_if_requested, drain_pcps
from emulator.guest.recovery_task import take_back
from emulator.workloads.kernels import churn_batch, free_batch
from emulator.workloads.layout import CHURN, HELD
from tests.support.guest import Guest, ZoneOf, guest_layout

MECHANISM: Final = PageReporting(order=4, capacity=4, delay_s=0.0)
_PAGES: Final = (2048, 4096)
_BLOCK: Final = 5


class Vcpus:
    """A guest of 24 MiB in two zones; every second page or so goes through the zones' locks."""

    def __init__(self, cpus: int) -> None:
        layout = guest_layout(sum(_PAGES), zones=2, cpus=cpus, block=_BLOCK, mechanism=MECHANISM)
        self.region = Region.create(layout)
        self.region.unlink()  # Children inherit the mapping.
        self.guest = Guest(
            ZoneOf(pages=_PAGES[0], name="DMA32", watermark_min=32, watermark_low=64),
            ZoneOf(pages=_PAGES[1], name="NORMAL", watermark_min=32, watermark_low=64),
            cpus=cpus,
            pageblock_order=_BLOCK,
            thp=True,
            mechanism=MECHANISM,
            arrays=self.region.arrays,
        )
        self.mm = self.guest.mm
        self.mm.kernel[0]["virtual"] = 0
        self.guest.set_pcp(batch=2, high=8)
        self._children: dict[int, int] = {}
        self.churn(0, rounds=1, level=100)  # Whatever has to be compiled is, before a fork.

    def start(self, cpu: int, work: Callable[[], None]) -> None:
        """Do some work as vCPU `cpu`, in a process of its own."""
        self.mm.actors[cpu]["state"] = ACTOR_RUNNING
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of threads, which are idle.
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self._children[cpu] = pid

    def kill(self, cpu: int) -> None:
        """End it wherever it is."""
        os.kill(self._children[cpu], signal.SIGKILL)

    def wait(self, cpu: int) -> int:
        """Until its process has ended: 0, or what killed it as a negative number."""
        return os.waitstatus_to_exitcode(os.waitpid(self._children.pop(cpu), 0)[1])

    def bury(self, cpu: int) -> int:
        """Take back what it held; returns how many pages."""
        return trio.run(partial(take_back, self.mm, cpu, now_ns=time.monotonic_ns()))

    def close(self) -> None:
        """End all that still run."""
        for cpu in list(self._children):
            self.kill(cpu)
            self.wait(cpu)
        self.region.close()

    # --- What vCPUs do.

    def churn(self, cpu: int, *, rounds: int, level: int, seed: int = 1, reports: int = 0) -> None:
        """Allocate, touch, verify and free, `rounds` times 500 of it; then give everything back.

        reports: it goes on (for 1000 times as long at most) until there have been so many.
        """
        held = np.zeros(2 * level, HELD)
        state = np.zeros(1, CHURN)
        state[0]["random"] = seed * 1_000_003 + cpu + 1
        state[0]["level_pages"] = level
        state[0]["order_max"] = 6
        kernel = self.mm.actors[self.guest.cpus]
        for done in range(1000 * rounds):
            if done >= rounds and kernel["operations"] >= reports:
                break
            churn_batch(self.mm, self.guest.ram, cpu, held, state, 500)
            drain_if_requested(self.mm, cpu)
        free_batch(self.mm, self.guest.ram, cpu, held, 0, int(state[0]["held"]))
        drain_pcps(self.mm, cpu)

    def report(self, cpu: int) -> None:
        """The hinting task and the host in one: isolated blocks lose their content."""
        cycle = MECHANISM.start(self.mm, cpu)
        words: Any = self.guest.ram.words
        while self.mm.actors[cpu]["arrivals"] == 0:
            decision = cycle.step(time.monotonic())
            if not isinstance(decision, Report):
                time.sleep(0.0002)
                continue
            actor = self.mm.actors[cpu]
            for pfn, order, _ in decision.batch.tolist():
                block = words[pfn : pfn + (1 << order)]
                actor["pages_touched"] += np.count_nonzero(block)
                block[:] = 0
            actor["operations"] += 1
            cycle.drain(True, time.monotonic())

    def stop_reporting(self, cpu: int) -> None:
        self.mm.actors[cpu]["arrivals"] = 1
