"""A small guest over plain arrays, in one process: zones, vCPUs and watermarks as a test asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.memory.ram import RamView
from emulator.config.page_cache import PageCacheConfig
from emulator.guest.boot import boot, boot_page_cache
from emulator.guest.hinting.cycle import Geometry, Mechanism
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.guest.mm.buddy_kernels import FREE_NOTIFYING, FREE_SILENTLY_TO_TAIL
from emulator.guest.mm.check_kernels import CHECK_MESSAGES, check_pcp, check_zone
from emulator.guest.mm.layout import (
    ALLOCATED,
    BUDDY,
    CACHE,
    ISOLATED,
    MARK_REPORTED,
    MAX_ORDER,
    MOVABLE,
    NO_PAGE,
    NR_FREE_LISTS,
    NR_KINDS,
    NR_MIGRATETYPES,
    NR_PCP_LISTS,
    PAGE_CACHE,
    PAGE_SIZE,
    PCP,
)
from emulator.guest.mm.page_cache_check_kernels import CACHE_MESSAGES, check_cache
from emulator.guest.mm.views import (
    GuestMemory,
    PageCache,
    array_shapes,
    cache_shapes,
    page_cache,
)
from tests.support.allocator_kernels import give, take

# Hooks compiled in, at an order that no block has: what most tests of the allocator run with.
SILENT = PageReporting(order=MAX_ORDER)


@dataclass(frozen=True, kw_only=True)
class ZoneOf:
    """A zone of so many pages; watermarks of 0 unless given, None as Linux computes them."""

    pages: int
    name: str = "NORMAL"
    reserved: int = 0
    watermark_min: int | None = 0
    watermark_low: int | None = 0
    watermark_high: int | None = 0

    @property
    def memory_bytes(self) -> int:
        return self.pages * PAGE_SIZE

    @property
    def reserved_bytes(self) -> int:
        return self.reserved * PAGE_SIZE


class Guest:
    """`mm` and `ram` as kernels take them, and their contents as Python values."""

    def __init__(
        self,
        *zones: ZoneOf,
        cpus: int = 1,
        pageblock_order: int = 9,
        thp: bool = False,
        mechanism: Mechanism = SILENT,
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        files: Sequence[int] = (),
        deferring: bool = False,
    ) -> None:
        pages = sum(zone.pages for zone in zones)
        layout = guest_layout(
            pages,
            zones=len(zones),
            cpus=cpus,
            block=pageblock_order,
            mechanism=mechanism,
            files=files,
        )
        if arrays is None:
            arrays = {name: np.zeros(count, dtype) for name, (dtype, count) in layout.items()}
        self.arrays = arrays
        self.mm = memory_of(arrays, mechanism)
        self.ram = RamView(arrays["words"], 0, 1)
        self.cpus = cpus
        boot(
            self.mm,
            self.ram,
            zones,
            thp=thp,
            pageblock_order=pageblock_order,
            virtual=True,
            deferring=deferring,
        )
        if files:
            boot_page_cache(self.mm, files, PageCacheConfig(read_ahead_bytes=4 * PAGE_SIZE))
        if mechanism is SILENT:
            self.mm.hooks.control[0]["order"] = MAX_ORDER + 1

    def set_pcp(self, *, batch: int, high: int) -> None:
        """The same limits for every vCPU and zone."""
        self.mm.pcps["batch"] = batch
        self.mm.pcps["high"] = high

    def free_list(self, order: int, migratetype: int, z: int = 0) -> list[int]:
        """Page frames from head to tail."""
        return self.free_lists(z).get((order, migratetype), [])

    def free_lists(self, z: int = 0) -> dict[tuple[int, int], list[int]]:
        """Those that hold anything, by order and migratetype."""
        chains = self._chains(z * NR_FREE_LISTS, NR_FREE_LISTS)
        return {divmod(index, NR_MIGRATETYPES): blocks for index, blocks in chains.items()}

    def pcp_lists(self, cpu: int = 0, z: int = 0) -> dict[int, list[int]]:
        """Those that hold anything, by index."""
        nr_zones = len(self.mm.zones)
        first = nr_zones * NR_FREE_LISTS + (cpu * nr_zones + z) * NR_PCP_LISTS
        return self._chains(first, NR_PCP_LISTS)

    def pcp(self, cpu: int = 0, z: int = 0) -> Any:
        """The record of these per-CPU lists."""
        return self.mm.pcps[cpu * len(self.mm.zones) + z]

    def _chains(self, first: int, count: int) -> dict[int, list[int]]:
        """The lists of `count` sentinels, but for empty ones."""
        following = self.mm.pages["next"].tolist()
        first += int(self.mm.kernel[0]["nr_pages"])
        chains: dict[int, list[int]] = {}
        for index in range(count):
            at = following[first + index]
            while at != first + index:
                blocks = chains.setdefault(index, [])
                blocks.append(at)
                assert len(blocks) <= len(following), "a list that does not come back to its head"
                at = following[at]
        return chains

    def reported(self) -> set[int]:
        """Free blocks that carry the mark."""
        pages = self.mm.pages[: int(self.mm.kernel[0]["nr_pages"])]
        marked = (pages["kind"] == BUDDY) & (pages["mark"] >= MARK_REPORTED)
        return set(np.flatnonzero(marked).tolist())

    def counts(self) -> npt.NDArray[np.int64]:
        """Pages by kind, over all zones; every invariant of the allocator holds, or this fails."""
        counts = np.zeros(NR_KINDS, np.int64)
        for z in range(len(self.mm.zones)):
            error, where = check_zone(self.mm, z, counts)
            assert error == 0, f"zone {z}, page {where}: {CHECK_MESSAGES[error]}"
            for cpu in range(self.cpus):
                error, where = check_pcp(self.mm, cpu, z)
                assert error == 0, f"vCPU {cpu}, page {where}: {CHECK_MESSAGES[error]}"
        assert counts.sum() == self.mm.kernel[0]["nr_pages"]
        assert counts[PCP] == self.mm.pcps["count"].sum()
        assert counts[ISOLATED] == self.mm.zones["isolated_pages"].sum()
        if isinstance(self.mm.cache, PageCache):
            found = np.zeros(1, PAGE_CACHE)
            error, where = check_cache(self.mm, counts[CACHE], found)
            assert error == 0, f"page or slot {where}: {CACHE_MESSAGES[error]}"
        else:
            assert counts[CACHE] == 0
        return counts

    def lru_list(self, lru: int) -> list[int]:
        """The slots of the pages on an LRU list, from head to tail."""
        nr_zones = len(self.mm.zones)
        first = nr_zones * NR_FREE_LISTS + self.cpus * nr_zones * NR_PCP_LISTS
        pfns = self._chains(first, 2).get(lru, [])
        return [int(slot) for slot in self.mm.pages["stamp"][pfns]]

    def fill(self, order: int = 0, migratetype: int = MOVABLE, z: int = 0) -> list[int]:
        """Take all of a zone in blocks of that order, past every watermark; their page frames."""
        blocks: list[int] = []
        while (pfn := take(self.mm, z, order, migratetype, 0)) != NO_PAGE:
            blocks.append(int(pfn))
        return blocks

    def give(
        self, *pfns: int, order: int = 0, migratetype: int = MOVABLE, tail: bool = False
    ) -> None:
        """Free blocks to the lists of zone 0, one after the other, and tell the mechanism of it."""
        for pfn in pfns:
            flags = FREE_SILENTLY_TO_TAIL if tail else FREE_NOTIFYING
            give(self.mm, 0, pfn, order, migratetype, flags, 0)

    def allocated_pages(self) -> int:
        """Pages in use."""
        return int(self.counts()[ALLOCATED])

    def save(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of all arrays, for `restore`."""
        return {name: array.copy() for name, array in self.arrays.items()}

    def restore(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Everything as it was when `saved` was made."""
        for name, array in self.arrays.items():
            array[:] = saved[name]


def guest_layout(
    pages: int,
    *,
    zones: int,
    cpus: int,
    block: int,
    mechanism: Mechanism,
    files: Sequence[int] = (),
) -> dict[str, tuple[np.dtype[Any], int]]:
    """The arrays of a guest: the allocator's, the mechanism's, the page cache's for files of so
    many pages, and a word for each page of RAM."""
    geometry = Geometry(nr_pages=pages, nr_zones=zones, nr_cpus=cpus, pageblock_order=block)
    shapes = cache_shapes(nr_files=len(files), file_pages=sum(files), cpus=cpus)
    cache = {f"page_cache.{name}": it for name, it in shapes.items()}
    return {
        **array_shapes(nr_pages=pages, zones=zones, cpus=cpus, pageblock_order=block),
        **{f"mechanism.{name}": it for name, it in mechanism.shared_arrays(geometry).items()},
        **(cache if files else {}),
        "words": (np.dtype("<i8"), pages),
    }


def memory_of(arrays: Mapping[str, npt.NDArray[Any]], mechanism: Mechanism) -> GuestMemory:
    """What kernels take, over the arrays of `guest_layout`."""
    own = {
        name.removeprefix("mechanism."): array
        for name, array in arrays.items()
        if name.startswith("mechanism.")
    }
    return GuestMemory(
        pages=arrays["pages"],
        pageblocks=arrays["pageblocks"],
        zones=arrays["zones"],
        pcps=arrays["pcps"],
        actors=arrays["actors"],
        kernel=arrays["kernel"],
        hooks=mechanism.hooks(own),
        cache=page_cache(arrays),
    )
