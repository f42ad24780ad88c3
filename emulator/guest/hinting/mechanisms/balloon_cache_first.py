"""A balloon that takes page cache first: clean pages of files that no process has mapped.

B. Singh, "[RFC][PATCH 2/3] Linux/Guest cooperative unmapped page cache control" (October 2010).
Where host and guest both cache the same disk, the guest's copy is the one to give up.  The host
says in the device's configuration, `reclaim_cache_first`, whether it wants that; the driver looks
whenever it fills the balloon, 256 pages a time, so that the host can change its mind.  The pages
are then allocated with a flag (__GFP_FREE_CACHE): where a zone is below its watermark, node reclaim
runs before the allocation goes on to its slow path, as if zone_reclaim_mode were set.  It frees
max(1, 32) pages, from 1/16 of the lists on, clean and unmapped, while there are more than 1 %
(`page_cache.min_unmapped_ratio`).  All else is the classic balloon (`balloon`).

`unmapped_page_control` is its companion, "[PATCH 1/2] unmapped page control" (June 2010), off there
without the boot parameter of that name: an allocation that finds more than 16 times those 1 %
unmapped wakes kswapd, which frees an eighth of what is beyond 1 %, whatever the balloon does.

Where it collides: feature bit 2, BALLOON_HINT, is DEFLATE_ON_OOM today, and the third word of the
configuration, `reclaim_cache_first`, is `free_page_hint_cmd_id`.  So a guest has either this or
`balloon.deflate_on_oom`, which was not there in 2010 either; the hint is only known to emulated
guests, never offered to others.

Known flaws, visible when run: with memory above the low watermark the flag changes nothing
(`balloon.hinted_fills` count, `page_cache.cache_first_bytes` stay 0); victims are chosen because
they are cheap, not because they are old (Avi Kivity's objection): what is read again and again
without being mapped goes before what is mapped and idle; one that wants to keep its cache cannot
say so.

Different from the patches: there is one pair of lists for the guest, not one for each zone (as in
Linux from 4.8 on), and node reclaim is that of Linux 6.6.  A guest without files has nothing to
reclaim: the same as `balloon`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.views import GuestMemory, PageCache


@dataclass(frozen=True, slots=True, kw_only=True)
class BalloonCacheFirst:
    """Parameters.  `reclaim_cache_first`: what the host wishes from the start, until its balloon
    manager wishes otherwise."""

    name: ClassVar[str] = "balloon_cache_first"
    balloon: ClassVar[bool] = True
    balloon_hint: ClassVar[bool] = True  # The driver has BALLOON_HINT.
    reclaim_cache_first: bool = False
    unmapped_page_control: bool = False

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """None."""
        return {}

    def hooks(self, arrays: Mapping[str, Any]) -> NoHooks:
        """None."""
        return NoHooks()

    def start(self, mm: GuestMemory, actor: int) -> None:
        """Never reports; switches unmapped page control on or off."""
        if isinstance(mm.cache, PageCache):
            mm.cache.control["unmapped_control"] = self.unmapped_page_control
