"""Where a mechanism hooks into the allocator.

A mechanism that must see what the allocator does keeps its state in a `NamedTuple` of shared
arrays, and names its hooks there (`with_hooks`): compiled functions with the signatures below.
Numba compiles the allocator once for each such class, so that a hook is inlined like any other
call, and one that is absent costs nothing.

    page_freed(mm, cpu, pfn, order)
        A vCPU frees a block, or the guest's kernel one out of the balloon or the page cache, as the
        actor behind the last vCPU; it is on no list yet.  No lock is held.
    block_freed(mm, z, pfn, order, now_ns)
        The last step of freeing one block, after merging: it is on a free list, `order` is its
        final order.  The zone's lock is held.  (Linux: page_reporting_notify_free.)
    block_unlinked(mm, z, pfn, order)
        A block is about to leave its free list, or to change to another.  The lock is held.
    tail_of_list(mm, z, order, migratetype, sentinel) -> page frame or sentinel
        Before which element a block is put "at the tail"; without the hook, before the sentinel:
        at the end.  The lock is held.
    may_take(mm, z, pfn, order) -> bool
        Whether an allocation may take this free block; if not, it looks at the next one of the
        list.  The lock is held.
    may_merge(mm, z, pfn, order) -> bool
        Whether this free block may merge with a buddy that is being freed.  The lock is held.
    block_split(mm, z, pfn, order, mark)
        The upper half of a free block was put on a list, as a block of its own; `mark` is the
        PAGE.mark of the whole, which the half has lost.  The lock is held.
    lists_forgotten(mm, z)
        The owner of the zone's lock died: its free lists are about to be made anew from the page
        array, and their order and the reported marks are lost.  The lock is held, in its place.
    before_failing(mm, cpu, order, attempt) -> bool
        An allocation is about to fail, for the `attempt`-th time (0, 1, ...): True to look once
        more.  No lock is held; the hook may wait, and must end that by itself.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from numba.core.extending import overload

HOOKS: Final = (
    "page_freed",
    "block_freed",
    "block_unlinked",
    "tail_of_list",
    "may_take",
    "may_merge",
    "block_split",
    "lists_forgotten",
    "before_failing",
)

T = TypeVar("T", bound=type)


def with_hooks(**hooks: Callable[..., Any]) -> Callable[[T], T]:
    """Class decorator: these kernels are the hooks of a mechanism whose state the class is.

    ValueError for a name that is none of `HOOKS`.
    """
    for name in hooks:
        if name not in HOOKS:
            raise ValueError(f"no hook {name!r}; there are: {', '.join(HOOKS)}")

    def decorate(state: T) -> T:
        for name, hook in hooks.items():
            # Not bound to an instance: the state is in `mm`, which every hook is given.
            setattr(state, name, staticmethod(hook))
        return state

    return decorate


class NoHooks(NamedTuple):
    """The state of a mechanism that does not hook into the allocator."""

    unused: int = 0


def kernel_of(mm: Any, field: str, name: str) -> Any:
    """The kernel that the class of a field of `mm` names; None without one.

    mm: an instance in an uncompiled run, and a numba type otherwise.
    """
    if hasattr(mm, "instance_class"):
        return getattr(mm.types[mm.fields.index(field)].instance_class, name, None)
    return getattr(type(getattr(mm, field)), name, None)


def _hook(mm: Any, name: str) -> Any:
    return kernel_of(mm, "hooks", name)


def page_freed(mm: Any, cpu: int, pfn: int, order: int) -> None:
    """See above; this body, and those below, serve uncompiled runs."""
    hook = _hook(mm, "page_freed")
    if hook is not None:
        hook(mm, cpu, pfn, order)


@overload(page_freed, strict=False)
def _page_freed(mm: Any, cpu: Any, pfn: Any, order: Any) -> Any:
    hook = _hook(mm, "page_freed")
    if hook is None:
        return lambda mm, cpu, pfn, order: None
    return lambda mm, cpu, pfn, order: hook(mm, cpu, pfn, order)


def block_freed(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    """See above."""
    hook = _hook(mm, "block_freed")
    if hook is not None:
        hook(mm, z, pfn, order, now_ns)


@overload(block_freed, strict=False)
def _block_freed(mm: Any, z: Any, pfn: Any, order: Any, now_ns: Any) -> Any:
    hook = _hook(mm, "block_freed")
    if hook is None:
        return lambda mm, z, pfn, order, now_ns: None
    return lambda mm, z, pfn, order, now_ns: hook(mm, z, pfn, order, now_ns)


def block_unlinked(mm: Any, z: int, pfn: int, order: int) -> None:
    """See above."""
    hook = _hook(mm, "block_unlinked")
    if hook is not None:
        hook(mm, z, pfn, order)


@overload(block_unlinked, strict=False)
def _block_unlinked(mm: Any, z: Any, pfn: Any, order: Any) -> Any:
    hook = _hook(mm, "block_unlinked")
    if hook is None:
        return lambda mm, z, pfn, order: None
    return lambda mm, z, pfn, order: hook(mm, z, pfn, order)


def tail_of_list(mm: Any, z: int, order: int, migratetype: int, sentinel: int) -> int:
    """See above."""
    hook = _hook(mm, "tail_of_list")
    return sentinel if hook is None else int(hook(mm, z, order, migratetype, sentinel))


@overload(tail_of_list, strict=False)
def _tail_of_list(mm: Any, z: Any, order: Any, migratetype: Any, sentinel: Any) -> Any:
    hook = _hook(mm, "tail_of_list")
    if hook is None:
        return lambda mm, z, order, migratetype, sentinel: sentinel
    return lambda mm, z, order, migratetype, sentinel: hook(mm, z, order, migratetype, sentinel)


def may_take(mm: Any, z: int, pfn: int, order: int) -> bool:
    """See above."""
    hook = _hook(mm, "may_take")
    return True if hook is None else bool(hook(mm, z, pfn, order))


@overload(may_take, strict=False)
def _may_take(mm: Any, z: Any, pfn: Any, order: Any) -> Any:
    hook = _hook(mm, "may_take")
    if hook is None:
        return lambda mm, z, pfn, order: True
    return lambda mm, z, pfn, order: hook(mm, z, pfn, order)


def may_merge(mm: Any, z: int, pfn: int, order: int) -> bool:
    """See above."""
    hook = _hook(mm, "may_merge")
    return True if hook is None else bool(hook(mm, z, pfn, order))


@overload(may_merge, strict=False)
def _may_merge(mm: Any, z: Any, pfn: Any, order: Any) -> Any:
    hook = _hook(mm, "may_merge")
    if hook is None:
        return lambda mm, z, pfn, order: True
    return lambda mm, z, pfn, order: hook(mm, z, pfn, order)


def block_split(mm: Any, z: int, pfn: int, order: int, mark: int) -> None:
    """See above."""
    hook = _hook(mm, "block_split")
    if hook is not None:
        hook(mm, z, pfn, order, mark)


@overload(block_split, strict=False)
def _block_split(mm: Any, z: Any, pfn: Any, order: Any, mark: Any) -> Any:
    hook = _hook(mm, "block_split")
    if hook is None:
        return lambda mm, z, pfn, order, mark: None
    return lambda mm, z, pfn, order, mark: hook(mm, z, pfn, order, mark)


def lists_forgotten(mm: Any, z: int) -> None:
    """See above."""
    hook = _hook(mm, "lists_forgotten")
    if hook is not None:
        hook(mm, z)


@overload(lists_forgotten, strict=False)
def _lists_forgotten(mm: Any, z: Any) -> Any:
    hook = _hook(mm, "lists_forgotten")
    if hook is None:
        return lambda mm, z: None
    return lambda mm, z: hook(mm, z)


def before_failing(mm: Any, cpu: int, order: int, attempt: int) -> bool:
    """See above."""
    hook = _hook(mm, "before_failing")
    return False if hook is None else bool(hook(mm, cpu, order, attempt))


@overload(before_failing, strict=False)
def _before_failing(mm: Any, cpu: Any, order: Any, attempt: Any) -> Any:
    hook = _hook(mm, "before_failing")
    if hook is None:
        return lambda mm, cpu, order, attempt: False
    return lambda mm, cpu, order, attempt: hook(mm, cpu, order, attempt)
