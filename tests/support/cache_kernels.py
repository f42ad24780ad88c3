"""Kernels of the page cache that other kernels call, with an entry from Python."""

from typing import Any

from devices.memory.jit import kernel
from emulator.guest.mm.page_cache_kernels import read_pages, write_pages
from emulator.guest.mm.reclaim_kernels import (
    DIRECTLY,
    IN_NODE,
    inactive_is_low,
    node_reclaim,
    reclaim_directly,
    shrink_active,
    shrink_inactive,
    shrink_lists,
)


@kernel
def read(
    mm: Any, ram: Any, cpu: int, file: int, index: int, count: int, mapped: bool, pfns: Any
) -> int:
    """Read pages of a file; how many came."""
    return read_pages(mm, ram, cpu, file, index, count, mapped, pfns)


@kernel
def write(mm: Any, ram: Any, cpu: int, file: int, index: int, count: int, pfns: Any) -> int:
    """Overwrite pages of a file; how many."""
    return write_pages(mm, ram, cpu, file, index, count, pfns)


@kernel
def inactive(mm: Any, actor: int, count: int, may_unmap: bool) -> tuple[int, int]:
    """Look at pages of the inactive list."""
    return shrink_inactive(mm, actor, count, DIRECTLY if may_unmap else IN_NODE)


@kernel
def active(mm: Any, actor: int, count: int, may_unmap: bool) -> None:
    """Look at pages of the active list."""
    shrink_active(mm, actor, count, DIRECTLY if may_unmap else IN_NODE)


@kernel
def lists(mm: Any, actor: int, priority: int, wanted: int, may_unmap: bool) -> tuple[int, int]:
    """One pass over both lists."""
    way = DIRECTLY if may_unmap else IN_NODE
    return shrink_lists(mm, actor, priority, wanted, way, False)


@kernel
def is_low(inactive: int, active: int) -> bool:
    """Whether the inactive list is low."""
    return inactive_is_low(inactive, active)


@kernel
def direct(mm: Any, cpu: int) -> bool:
    """Direct reclaim."""
    return reclaim_directly(mm, cpu, 0)


@kernel
def node(mm: Any, actor: int, order: int) -> bool:
    """Node reclaim, whatever the mode."""
    return node_reclaim(mm, actor, order, IN_NODE)
