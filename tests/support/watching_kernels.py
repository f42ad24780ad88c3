"""A mechanism that only watches: every hook counts its calls and keeps the last arguments."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.jit import kernel
from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.mm.hook_kernels import with_hooks

CALL: Final = np.dtype([("count", "<i8"), ("a", "<i8"), ("b", "<i8"), ("c", "<i8"), ("d", "<i8")])
RULES: Final = np.dtype(
    [("not_taken", "<i8"), ("not_merged", "<i8"), ("tail", "<i8"), ("attempts", "<i8")]
)
(
    PAGE_FREED,
    BLOCK_FREED,
    BLOCK_UNLINKED,
    TAIL_OF_LIST,
    MAY_TAKE,
    MAY_MERGE,
    BLOCK_SPLIT,
    LISTS_FORGOTTEN,
    BEFORE_FAILING,
) = range(9)


@kernel(inner=True)
def note(mm: Any, hook: int, a: int, b: int, c: int, d: int) -> None:
    call = mm.hooks.calls[hook]
    call["count"] += 1
    call["a"] = a
    call["b"] = b
    call["c"] = c
    call["d"] = d


@kernel(inner=True)
def page_freed(mm: Any, cpu: int, pfn: int, order: int) -> None:
    note(mm, PAGE_FREED, cpu, pfn, order, 0)


@kernel(inner=True)
def block_freed(mm: Any, z: int, pfn: int, order: int, now_ns: int) -> None:
    note(mm, BLOCK_FREED, z, pfn, order, now_ns)


@kernel(inner=True)
def block_unlinked(mm: Any, z: int, pfn: int, order: int) -> None:
    note(mm, BLOCK_UNLINKED, z, pfn, order, 0)


@kernel(inner=True)
def tail_of_list(mm: Any, z: int, order: int, migratetype: int, sentinel: int) -> int:
    note(mm, TAIL_OF_LIST, z, order, migratetype, sentinel)
    tail = mm.hooks.rules[0]["tail"]
    return sentinel if tail < 0 else tail


@kernel(inner=True)
def may_take(mm: Any, z: int, pfn: int, order: int) -> bool:
    note(mm, MAY_TAKE, z, pfn, order, 0)
    return bool(pfn != mm.hooks.rules[0]["not_taken"])


@kernel(inner=True)
def may_merge(mm: Any, z: int, pfn: int, order: int) -> bool:
    note(mm, MAY_MERGE, z, pfn, order, 0)
    return bool(pfn != mm.hooks.rules[0]["not_merged"])


@kernel(inner=True)
def block_split(mm: Any, z: int, pfn: int, order: int, mark: int) -> None:
    note(mm, BLOCK_SPLIT, z, pfn, order, mark)


@kernel(inner=True)
def lists_forgotten(mm: Any, z: int) -> None:
    note(mm, LISTS_FORGOTTEN, z, 0, 0, 0)


@kernel(inner=True)
def before_failing(mm: Any, cpu: int, order: int, attempt: int) -> bool:
    note(mm, BEFORE_FAILING, cpu, order, attempt, 0)
    return bool(attempt < mm.hooks.rules[0]["attempts"])


@with_hooks(
    page_freed=page_freed,
    block_freed=block_freed,
    block_unlinked=block_unlinked,
    tail_of_list=tail_of_list,
    may_take=may_take,
    may_merge=may_merge,
    block_split=block_split,
    lists_forgotten=lists_forgotten,
    before_failing=before_failing,
)
class Watched(NamedTuple):
    """CALL[9] and RULES[1]."""

    calls: npt.NDArray[Any]
    rules: npt.NDArray[Any]


class Watching:
    """The mechanism."""

    name: ClassVar[str] = "watching"

    def shared_arrays(self, geometry: Geometry) -> Layout:
        return {"calls": (CALL, 9), "rules": (RULES, 1)}

    def hooks(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Watched:
        arrays["rules"][0] = (-1, -1, -1, 0)
        return Watched(arrays["calls"], arrays["rules"])

    def start(self, mm: Any, actor: int) -> None:
        return None
