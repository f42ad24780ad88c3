"""The arrays of a guest's memory management, as kernels take them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.layout import (
    ACTOR,
    FILE,
    IMAGE,
    IO,
    KERNEL,
    PAGE,
    PAGE_CACHE,
    PCP_LISTS,
    SLOT,
    ZONE,
    nr_sentinels,
)
from emulator.guest.mm.reclaim_kernels import (
    reclaim_directly,
    reclaim_node,
    too_many_unmapped,
    wake,
)
from emulator.guest.mm.shortage_kernels import NoPageCache


class PageCache(NamedTuple):
    """The page cache of a guest that has files; shapes and types as in `layout`."""

    control: npt.NDArray[Any]
    files: npt.NDArray[Any]
    slots: npt.NDArray[Any]
    image: npt.NDArray[Any]
    io: npt.NDArray[Any]


# What the allocator calls where there is a page cache (`shortage_kernels`).
for _name, _kernel in (
    ("wake_kswapd", wake),
    ("reclaim_directly", reclaim_directly),
    ("reclaim_node", reclaim_node),
    ("too_many_unmapped", too_many_unmapped),
):
    setattr(PageCache, _name, staticmethod(_kernel))


class GuestMemory(NamedTuple):
    """All that the allocator works on; shapes and types as in `layout`."""

    pages: npt.NDArray[Any]
    pageblocks: npt.NDArray[np.uint8]
    zones: npt.NDArray[Any]
    pcps: npt.NDArray[Any]
    actors: npt.NDArray[Any]
    kernel: npt.NDArray[Any]
    hooks: Any = NoHooks()  # The mechanism's state; its class decides which hooks are compiled in.
    cache: Any = NoPageCache()  # PageCache, in a guest that has files.


def array_shapes(
    *, nr_pages: int, zones: int, cpus: int, pageblock_order: int
) -> dict[str, tuple[np.dtype[Any], int]]:
    """Data type and length of each array of `GuestMemory`, by name."""
    return {
        "kernel": (KERNEL, 1),
        "zones": (ZONE, zones),
        "pcps": (PCP_LISTS, cpus * zones),
        "actors": (ACTOR, cpus + 1),
        "pageblocks": (np.dtype("u1"), -(-nr_pages // (1 << pageblock_order))),
        "pages": (PAGE, nr_pages + nr_sentinels(zones=zones, cpus=cpus)),
    }


def cache_shapes(
    *, nr_files: int, file_pages: int, cpus: int
) -> dict[str, tuple[np.dtype[Any], int]]:
    """Data type and length of each array of `PageCache`, by name; `file_pages`: of all files."""
    return {
        "control": (PAGE_CACHE, 1),
        "files": (FILE, nr_files),
        "slots": (SLOT, file_pages),
        "image": (IMAGE, file_pages),
        "io": (IO, cpus),
    }


def page_cache(arrays: Mapping[str, npt.NDArray[Any]]) -> PageCache | NoPageCache:
    """From the arrays of a guest, where those of its page cache are called `page_cache.NAME`."""
    if "page_cache.control" not in arrays:
        return NoPageCache()
    return PageCache(*(arrays[f"page_cache.{name}"] for name in PageCache._fields))


def total(counters: npt.NDArray[Any]) -> int:
    """The sum of a column.  Of one record it is only looked at: a sum takes 1.4 us, this 40 ns."""
    return int(counters.item() if len(counters) == 1 else counters.sum())
