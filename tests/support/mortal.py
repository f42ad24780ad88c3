"""A vCPU that dies at a store of its own: arrays whose n-th write ends it instead of being done.

For kernels that are interpreted (`NUMBA_DISABLE_JIT=1`): those only see what looks like an array.
"""

from typing import Any

import numpy as np

from emulator.guest.mm.views import GuestMemory, PageCache


class Killed(Exception):
    """The process has ended here."""


class Life:
    """How many stores are left; None: any number."""

    def __init__(self, stores: int | None) -> None:
        self.left = stores
        self.done = 0

    def spend(self) -> None:
        if self.left is not None and self.done == self.left:
            raise Killed
        self.done += 1


class Mortal:
    """An array, a record or a field of several values; each store takes one of the life's."""

    def __init__(self, found: Any, life: Life) -> None:
        self._found = found
        self._life = life

    def __getitem__(self, key: Any) -> Any:
        found = self._found[key]
        return Mortal(found, self._life) if isinstance(found, np.ndarray | np.void) else found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._life.spend()
        self._found[key] = value

    def __len__(self) -> int:
        return len(self._found)

    @property
    def size(self) -> int:
        return len(self._found)


def mortal_memory(mm: GuestMemory, life: Life) -> GuestMemory:
    """The same memory, for a vCPU that lives so long."""
    parts: dict[str, Any] = {name: Mortal(array, life) for name, array in mm._asdict().items()}
    parts["hooks"] = type(mm.hooks)(*(Mortal(array, life) for array in mm.hooks))
    parts["cache"] = mm.cache
    if isinstance(mm.cache, PageCache):
        parts["cache"] = PageCache._make(Mortal(array, life) for array in mm.cache)
    return GuestMemory._make(parts.values())
