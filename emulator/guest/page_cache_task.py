"""The page cache's two tasks in the guest's kernel: kswapd, and write-back.

kswapd is balance_pgdat of Linux 6.6 (mm/vmscan.c): woken when an allocation finds no zone above its
low watermark, it reclaims until one is above its high watermark, looking at more of the lists each
time, and takes back the boost that it found.  Write-back is the flusher thread (fs/fs-writeback.c):
it writes what has been dirty for long, all while too much is dirty, or what it is asked to.
"""

import math
from typing import Any, Final

import numpy as np
import trio

from devices.memory.ram import RamView
from devices.virtio.notifier import Notifier
from emulator.config.page_cache import PageCacheConfig
from emulator.guest.clock import Clock
from emulator.guest.file_io import dirtyable_pages, unwritten_pages
from emulator.guest.mm.layout import PAGE_SIZE, WRITE_BACK
from emulator.guest.mm.reclaim_kernels import (
    DEF_PRIORITY,
    any_zone_balanced,
    balance_unmapped,
    kswapd_pass,
    lower_boost,
)
from emulator.guest.mm.views import GuestMemory
from emulator.guest.mm.write_back_kernels import begin_write_back, end_write_back
from emulator.guest.swap_in import SwapIn

_PAGES_AT_ONCE: Final = 256  # 1 MiB on its way to the disk at a time.


class Kswapd:
    """`freed` wakes the hinting task, as a vCPU does that frees; `flusher` wakes write-back."""

    def __init__(
        self, mm: GuestMemory, clock: Clock, *, freed: Notifier, flusher: Notifier
    ) -> None:
        self._mm = mm
        self._clock = clock
        self._actor = int(mm.kernel[0]["nr_cpus"])
        self._control = mm.cache.control[0]
        self._freed = freed
        self._flusher = flusher

    async def run(self, woken: Notifier) -> None:
        """Keep a zone above its high watermark, for ever."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self._control["kswapd_wanted"]:
                await woken.wait_notified()
                continue
            self._control["kswapd_wanted"] = 0
            await self.balance()

    async def balance(self) -> None:
        """Reclaim until a zone is balanced, or nothing more comes (balance_pgdat).

        While only boosts ask for it, and a zone is balanced without them, no more is reclaimed than
        they amount to, from no more than a quarter of 1/2**10 of the lists.
        """
        mm, priority = self._mm, DEF_PRIORITY
        boosts = mm.zones["watermark_boost"].copy()
        boost_left = int(boosts.sum())
        self._control["kswapd_runs"] += 1
        if balance_unmapped(mm, self._actor):
            self._pass_on()
        while priority >= 1:
            balanced = bool(any_zone_balanced(mm))
            if not balanced and boost_left:
                boost_left, priority = 0, DEF_PRIORITY
                continue
            if balanced and not boost_left:
                break
            raises = not (boost_left and priority == DEF_PRIORITY - 2)
            self._clock.now_s()
            freed, enough = kswapd_pass(mm, self._actor, priority)
            self._pass_on()
            boost_left -= min(boost_left, freed)
            if boost_left and not freed:
                break
            if not freed or (raises and not enough):
                priority -= 1
            await trio.lowlevel.checkpoint()
        for z, boost in enumerate(boosts):
            if boost:
                lower_boost(mm, z, self._actor, int(boost))

    def _pass_on(self) -> None:
        kernel = self._mm.kernel[0]
        if kernel["doorbell"]:
            kernel["doorbell"] = 0
            self._freed.notify()
        if self._control["flush_wanted"]:
            self._flusher.notify()


class WriteBack:
    """Writes dirty pages at a pace; `ram` is where they are read; `swap`: from there at first."""

    def __init__(
        self,
        mm: GuestMemory,
        ram: RamView,
        clock: Clock,
        config: PageCacheConfig,
        swap: SwapIn | None = None,
    ) -> None:
        self._mm = mm
        self._ram = ram
        self._clock = clock
        self._config = config
        self._swap = swap
        self._actor = int(mm.kernel[0]["nr_cpus"])
        self._control: Any = mm.cache.control[0]
        self._batch = np.zeros(_PAGES_AT_ONCE, WRITE_BACK)

    async def run(self, woken: Notifier) -> None:
        """Write back for ever: when it is woken, and every `dirty_writeback`."""
        while True:
            with trio.move_on_after(self._config.dirty_writeback_s):
                await woken.wait_notified()
            wanted_s = self._clock.now_s() if self._control["flush_wanted"] else -math.inf
            self._control["flush_wanted"] = 0
            while await self._write(wanted_s):
                pass

    async def _write(self, wanted_s: float) -> bool:
        """One batch; whether there was any.  All that is dirty since `wanted_s` or before is."""
        until_s = max(wanted_s, self._clock.now_s() - self._config.dirty_expire_s)
        background = self._config.dirty_background * dirtyable_pages(self._mm)
        if unwritten_pages(self._control) > background:
            until_s = self._clock.now_s()
        until_ns = round(until_s * 1e9)
        count = int(begin_write_back(self._mm, self._ram, self._actor, self._batch, until_ns))
        if count == 0:
            await trio.lowlevel.checkpoint()
            return False
        if self._swap is not None:
            await self._swap.settle()
        await trio.sleep(count * PAGE_SIZE / self._config.write_back_bytes_per_s)
        self._clock.now_s()
        end_write_back(self._mm, self._actor, self._batch, count)
        return True


class PageCacheTask:
    """Both, with what wakes them."""

    def __init__(
        self,
        kswapd: Kswapd,
        write_back: WriteBack,
        *,
        wake_kswapd: Notifier,
        wake_flusher: Notifier,
    ) -> None:
        self._kswapd = kswapd
        self._write_back = write_back
        self._wake_kswapd = wake_kswapd
        self._wake_flusher = wake_flusher

    async def run(self) -> None:
        """Until cancelled: what is on its way to the disk then stays in the cache."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kswapd.run, self._wake_kswapd)
            nursery.start_soon(self._write_back.run, self._wake_flusher)
