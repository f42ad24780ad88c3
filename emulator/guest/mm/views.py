"""The arrays of a guest's memory management, as kernels take them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.layout import (
    ACTOR,
    KERNEL,
    PAGE,
    PCP_LISTS,
    ZONE,
    nr_sentinels,
)


class GuestMemory(NamedTuple):
    """All that the allocator works on; shapes and types as in `layout`."""

    pages: npt.NDArray[Any]
    pageblocks: npt.NDArray[np.uint8]
    zones: npt.NDArray[Any]
    pcps: npt.NDArray[Any]
    actors: npt.NDArray[Any]
    kernel: npt.NDArray[Any]
    hooks: Any = NoHooks()  # The mechanism's state; its class decides which hooks are compiled in.


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
