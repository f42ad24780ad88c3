"""Where a mechanism hooks into the allocator.

A mechanism that must see what the allocator does keeps its state in a `NamedTuple` of shared
arrays, and names its hooks there as class attributes: compiled functions with the signatures
below.  Numba compiles the allocator once for each such class, so that a hook is inlined like any
other call, and one that is absent costs nothing.

    block_freed(mm, z, pfn, order, now_ns)
        The last step of freeing one block, after merging, with the zone's lock held.
        `order` is the final order.  (Linux: page_reporting_notify_free.)
"""

from typing import Any, NamedTuple

from numba.core.extending import overload


class NoHooks(NamedTuple):
    """The state of a mechanism that does not hook into the allocator."""

    unused: int = 0


def block_freed(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """Call the mechanism's hook; this body serves uncompiled runs."""
    hook = getattr(type(mm.hooks), "block_freed", None)
    if hook is not None:
        hook(mm, z, pfn, order, now_ns)


@overload(block_freed, strict=False)
def _block_freed(mm: Any, z: Any, pfn: Any, order: Any, now_ns: Any) -> Any:
    hook = getattr(_class_of_hooks(mm), "block_freed", None)
    if hook is None:
        return lambda mm, z, pfn, order, now_ns: None

    def call(mm: Any, z: Any, pfn: Any, order: Any, now_ns: Any) -> None:
        hook(mm, z, pfn, order, now_ns)

    return call


def _class_of_hooks(mm: Any) -> type:
    """The Python class behind the numba type of `mm.hooks`."""
    hooks: type = mm.types[mm.fields.index("hooks")].instance_class
    return hooks
