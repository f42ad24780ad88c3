"""The guest's balloon without I/O: pages taken, handed over and given back; figures for the host.

    towards_target() > 0    take(), then enqueue() what was got, then tell the host
    towards_target() < 0    dequeue(), tell the host, then release()

The host is told before a page is used again, whether or not it asked for that.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import BALLOON_PAGE_SIZE, PFN, PFNS_MAX
from emulator.guest.balloon.kernels import (
    dequeue_pages,
    enqueue_pages,
    release_pages,
    take_pages,
)
from emulator.guest.balloon.layout import NOTHING
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.mm.views import GuestMemory, PageCache

assert PAGE_SIZE == BALLOON_PAGE_SIZE, "a page of the guest has one number"


class Balloon:
    """One guest's balloon, used by its kernel (actor `nr_cpus` of `mm`) alone.

    state:           BALLOON_STATE[1], empty
    config:          BALLOON_CONFIG[1], as the device shows it
    hinted:          whether the driver has BALLOON_HINT: it then looks at `reclaim_cache_first`
                     when it fills the balloon
    config_written:  called after it was written to; set it where the device does not see that
    """

    def __init__(
        self,
        mm: GuestMemory,
        state: npt.NDArray[Any],
        config: npt.NDArray[Any],
        *,
        deflate_on_oom: bool,
        hinted: bool = False,
    ) -> None:
        self.mm: Final = mm
        self.state: Final = state
        self._actor = int(mm.kernel[0]["nr_cpus"])
        self._config = config
        self.config_written: Callable[[], None] = lambda: None
        self._hinted = hinted
        state[0]["top"] = NOTHING
        state[0]["deflate_on_oom"] = deflate_on_oom

    @property
    def pages(self) -> int:
        """Pages in the balloon."""
        return int(self.state[0]["pages"])

    def towards_target(self) -> int:
        """Pages that are missing (above 0) or too many (below) for what the host asks for."""
        target = int(self._config[0]["num_pages"])
        self.state[0]["target_pages"] = target
        return target - self.pages

    def take(self, pages: int) -> npt.NDArray[Any]:
        """Allocate up to `pages`, at most PFNS_MAX: u4[n], n less if the guest is short."""
        pfns = np.zeros(min(pages, PFNS_MAX), PFN)
        first = self._hinted and bool(self._config[0]["reclaim_cache_first"])
        self.state[0]["hinted_fills"] += first
        return pfns[: take_pages(self.mm, self._actor, self.state, pfns, len(pfns), first)]

    def enqueue(self, pfns: npt.NDArray[Any]) -> None:
        """Put what `take` got into the balloon."""
        enqueue_pages(self.mm, self._actor, self.state, pfns, len(pfns))

    def dequeue(self, pages: int) -> npt.NDArray[Any]:
        """Take up to `pages` out of it, at most PFNS_MAX: u4[n], not free before `release`."""
        pfns = np.zeros(min(pages, PFNS_MAX), PFN)
        return pfns[: dequeue_pages(self.mm, self.state, pfns, len(pfns))]

    def release(self, pfns: npt.NDArray[Any]) -> None:
        """Free what `dequeue` gave, now that the host knows."""
        release_pages(self.mm, self._actor, self.state, pfns, len(pfns))

    def write_actual(self) -> None:
        """Let the host know how many pages are in the balloon (update_balloon_size)."""
        self.state[0]["told_pages"] = self.pages
        self._config[0]["actual"] = self.pages
        self.config_written()

    def figures(self) -> dict[str, int]:
        """What the guest knows for the statistics queue, in Linux's order (update_balloon_stats).

        The guest has no swap, so that none of it is swapped.  Left out: minor faults, for memory of
        processes has no page tables here; huge pages of hugetlbfs, of which there are none; and
        without files, the page cache and its faults.
        """
        zones = self.mm.zones
        free = int(zones["free_pages"].sum())
        # What the kernel keeps for itself (totalreserve_pages): no allocation gets below.
        reserve = np.minimum(zones["lowmem_reserve"] + zones["watermark_high"], zones["managed"])
        cached = 0
        faults: dict[str, int] = {}
        caches: dict[str, int] = {}
        if isinstance(self.mm.cache, PageCache):
            control = self.mm.cache.control[0]
            cached = int(control["pages"])
            faults = {"major_faults": int(control["major_faults"])}
            caches = {"caches_bytes": cached * PAGE_SIZE}
        # Of the cache, half or a low watermark is not to be had without harm (si_mem_available).
        low = int((zones["watermark_low"] + zones["watermark_boost"]).sum())
        available = free - int(reserve.sum()) + cached - min(cached // 2, low)
        return {
            "swap_in_bytes": 0,
            "swap_out_bytes": 0,
            **faults,
            "free_bytes": free * PAGE_SIZE,
            "total_bytes": int(zones["managed"].sum()) * PAGE_SIZE,
            "available_bytes": max(0, available) * PAGE_SIZE,
            **caches,
        }
