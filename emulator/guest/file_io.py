"""What a vCPU does about files between two batches of compiled work.

It passes wake-ups on to the guest's kernel, pays in virtual time for what it had read from the
host, is held up while too much is dirty (balance_dirty_pages), and waits for write-back where
nothing else can be reclaimed (reclaim_throttle).
"""

from typing import Any, Final

import trio

from devices.virtio.notifier import Notifier
from emulator.config.page_cache import PageCacheConfig
from emulator.guest.clock import Clock
from emulator.guest.mm.views import GuestMemory, total

_PAUSE_S_MAX: Final = 0.2  # MAX_PAUSE: a writer sleeps no longer at a time.
_POLL_S: Final = 0.01
_WRITE_BACK_S_MAX: Final = 10.0  # For a page to be written; after that the allocation fails.


class FileIo:
    """Of vCPU `cpu`, in a guest that has files; `kswapd` and `flusher` wake the kernel's tasks."""

    def __init__(
        self,
        mm: GuestMemory,
        cpu: int,
        clock: Clock,
        config: PageCacheConfig,
        *,
        kswapd: Notifier,
        flusher: Notifier,
    ) -> None:
        self._mm = mm
        self._clock = clock
        self._config = config
        self._control = mm.cache.control[0]
        self._io = mm.cache.io[cpu]
        self._owed_ns = mm.cache.io["owed_ns"][cpu : cpu + 1]
        self._kswapd = kswapd
        self._flusher = flusher

    def pass_on(self) -> None:
        """Wake whom a kernel asked for."""
        if self._control["kswapd_wanted"]:
            self._kswapd.notify()
        if self._control["flush_wanted"]:
            self._flusher.notify()

    async def settle(self) -> float:
        """After a batch: pay for its reads, and wait if too much is dirty.  Seconds waited."""
        owed_ns = self._owed_ns.item()
        dirty = unwritten_pages(self._control)
        if not owed_ns and not dirty:
            return 0.0
        began_s = self._clock.now_s()
        if owed_ns:
            self._owed_ns[0] = 0
            if self._mm.kernel[0]["virtual"]:
                await self._clock.sleep_until(began_s + owed_ns / 1e9)
                self._io["waited_ns"] += owed_ns
            dirty = unwritten_pages(self._control)
        if dirty > self._config.dirty_background * dirtyable_pages(self._mm):
            self._flusher.notify()
            await self._balance_dirty()
        return self._clock.now_s() - began_s

    async def _balance_dirty(self) -> None:
        with trio.move_on_after(_PAUSE_S_MAX):
            while self._too_dirty():
                await trio.sleep(_POLL_S)

    def _too_dirty(self) -> bool:
        limit = self._config.dirty_ratio * dirtyable_pages(self._mm)
        return unwritten_pages(self._control) > limit

    async def notify(self) -> bool:
        """The vCPU is out of memory: wait until something was written; False: nothing will be."""
        if not unwritten_pages(self._control):
            return False
        written = int(self._control["written_pages"])
        self._control["flush_wanted"] = 1
        self._flusher.notify()
        with trio.move_on_after(_WRITE_BACK_S_MAX):
            while self._control["written_pages"] == written:
                await trio.sleep(_POLL_S)
            return True
        return False

    async def sync(self) -> None:
        """Until all that is dirty now has been written."""
        began_ns = round(self._clock.now_s() * 1e9)
        files = self._mm.cache.files
        while self._control["writeback_pages"] or bool(
            ((files["dirty_pages"] > 0) & (files["dirtied_ns"] <= began_ns)).any()
        ):
            self._control["flush_wanted"] = 1
            self._flusher.notify()
            await trio.sleep(_POLL_S)
        self._clock.now_s()


def unwritten_pages(control: Any) -> int:
    """Pages that are dirty or on their way to the disk; `control`: PAGE_CACHE[0]."""
    return int(control["dirty_pages"]) + int(control["writeback_pages"])


def dirtyable_pages(mm: GuestMemory) -> int:
    """What the dirty ratios are of: free memory and the page cache (global_dirtyable_memory)."""
    return total(mm.zones["free_pages"]) + int(mm.cache.control[0]["pages"])
