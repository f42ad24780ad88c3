"""Where the allocator turns to the page cache: kswapd is woken, pages are reclaimed.

A guest without files has no page cache (`NoPageCache`), and then nothing of this is compiled in:
as with a mechanism's hooks, the class of `mm.cache` decides.

    wake_kswapd(mm)
        No zone is above its low watermark.
    found_above_mark(mm, z)
        An allocation found the zone above its mark.  Without a page cache there is no kswapd, and
        a boost of the watermarks ends here, as kswapd ends it at once where it finds nothing to
        reclaim; with one, kswapd is woken for it, and for unmapped page control.  The zone's lock
        is held.
    reclaimed_in_node(mm, actor, order, cache_first) -> bool
        A zone is below its mark: whether node reclaim, if it is on or `cache_first` asks for it,
        freed enough to look again.
    reclaimed_directly(mm, cpu, order) -> bool
        All zones are below their min watermarks: whether direct reclaim freed anything.
"""

from typing import Any, NamedTuple

from numba.core.extending import overload

from emulator.guest.mm.hook_kernels import kernel_of


class NoPageCache(NamedTuple):
    """The page cache of a guest without files."""

    unused: int = 0


def wake_kswapd(mm: Any) -> None:
    """See above; this body, and those below, serve uncompiled runs."""
    wake = kernel_of(mm, "cache", "wake_kswapd")
    if wake is not None:
        wake(mm)


@overload(wake_kswapd, strict=False)
def _wake_kswapd(mm: Any) -> Any:
    wake = kernel_of(mm, "cache", "wake_kswapd")
    if wake is None:
        return lambda mm: None
    return lambda mm: wake(mm)


def found_above_mark(mm: Any, z: int) -> None:
    """See above."""
    wake = kernel_of(mm, "cache", "wake_kswapd")
    if wake is None:
        mm.zones[z]["watermark_boost"] = 0
    elif mm.zones[z]["watermark_boost"] != 0 or mm.cache.too_many_unmapped(mm):
        wake(mm)


@overload(found_above_mark, strict=False)
def _found_above_mark(mm: Any, z: Any) -> Any:
    wake = kernel_of(mm, "cache", "wake_kswapd")
    too_many_unmapped = kernel_of(mm, "cache", "too_many_unmapped")

    def without(mm: Any, z: Any) -> None:
        mm.zones[z]["watermark_boost"] = 0

    def kswapd(mm: Any, z: Any) -> None:
        if mm.zones[z]["watermark_boost"] != 0 or too_many_unmapped(mm):
            wake(mm)

    return without if wake is None else kswapd


def reclaimed_in_node(mm: Any, actor: int, order: int, cache_first: bool) -> bool:
    """See above."""
    reclaim = kernel_of(mm, "cache", "reclaim_node")
    return False if reclaim is None else bool(reclaim(mm, actor, order, cache_first))


@overload(reclaimed_in_node, strict=False)
def _reclaimed_in_node(mm: Any, actor: Any, order: Any, cache_first: Any) -> Any:
    reclaim = kernel_of(mm, "cache", "reclaim_node")
    if reclaim is None:
        return lambda mm, actor, order, cache_first: False
    return lambda mm, actor, order, cache_first: reclaim(mm, actor, order, cache_first)


def reclaimed_directly(mm: Any, cpu: int, order: int) -> bool:
    """See above."""
    reclaim = kernel_of(mm, "cache", "reclaim_directly")
    return False if reclaim is None else bool(reclaim(mm, cpu, order))


@overload(reclaimed_directly, strict=False)
def _reclaimed_directly(mm: Any, cpu: Any, order: Any) -> Any:
    reclaim = kernel_of(mm, "cache", "reclaim_directly")
    if reclaim is None:
        return lambda mm, cpu, order: False
    return lambda mm, cpu, order: reclaim(mm, cpu, order)
