"""Arrays in one segment of `multiprocessing.shared_memory`, owned in one place.

    region = Region.create({"zones": (ZONE, 2), "pages": (PAGE, 1 << 18)})
    region.arrays["pages"]                     # views into the segment
    Region.attach(region.name, layout)         # the same, in a child of the owner
    region.unlink()                            # the name is gone, the memory lives on
    region.close()                             # views dropped, unmapped

The owner unlinks the name as soon as every child has attached: from then on nothing is left behind
however the processes end.  `SharedMemory.close` raises `BufferError` while numpy views live, also
from `__del__` when the process ends; so the views belong to the region and go before the mapping.
"""

import gc
import mmap
import os
from collections.abc import Mapping
from multiprocessing import shared_memory
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Layout = Mapping[str, tuple[np.dtype[Any], int]]

_ALIGNMENT: Final = 4096  # Of every array: none shares a cache line or a page with another.


def place(layout: Layout) -> tuple[dict[str, int], int]:
    """Offset in bytes of each array, and the size of the segment in bytes."""
    offsets, end = {}, 0
    for name, (dtype, count) in layout.items():
        offsets[name] = end
        end += -(-dtype.itemsize * count // _ALIGNMENT) * _ALIGNMENT
    return offsets, max(end, _ALIGNMENT)


class Region:
    """One segment and its arrays.  Make it with `create`, `attach` or `private`."""

    def __init__(
        self, layout: Layout, segment: shared_memory.SharedMemory | None, *, owner: bool
    ) -> None:
        offsets, size_bytes = place(layout)
        memory: Any
        if segment is None:
            memory = mmap.mmap(-1, size_bytes)
        else:
            if segment.size < size_bytes:
                raise ValueError(f"segment {segment.name}: {segment.size} of {size_bytes} bytes")
            memory = segment.buf
        self.layout: Final = dict(layout)
        self._segment = segment
        self._linked = owner
        self.name: Final = "" if segment is None else segment.name
        self.size_bytes: Final = size_bytes
        self.arrays: dict[str, npt.NDArray[Any]] = {
            name: np.ndarray((count,), dtype, memory, offsets[name])
            for name, (dtype, count) in layout.items()
        }

    @classmethod
    def private(cls, layout: Layout) -> Self:
        """The same arrays in this process's own memory, zeroed: for a run in one process."""
        return cls(layout, None, owner=False)

    @classmethod
    def create(cls, layout: Layout) -> Self:
        """A new segment, zeroed.  OSError where /dev/shm is too small: a touch would be a SIGBUS."""
        _, size_bytes = place(layout)
        room = os.statvfs("/dev/shm")
        if size_bytes > room.f_bavail * room.f_frsize:
            raise OSError(
                f"/dev/shm has {room.f_bavail * room.f_frsize >> 20} MiB free and the guest's state"
                f" needs {size_bytes >> 20} MiB; enlarge it (mount -o remount,size=... /dev/shm)"
            )
        segment = shared_memory.SharedMemory(create=True, size=size_bytes)
        return cls(layout, segment, owner=True)

    @classmethod
    def attach(cls, name: str, layout: Layout) -> Self:
        """The segment of another process of the same owner; FileNotFoundError once unlinked."""
        return cls(layout, shared_memory.SharedMemory(name), owner=False)

    def unlink(self) -> None:
        """Remove the segment's name; the memory stays until all have closed it."""
        if self._linked and self._segment is not None:
            self._linked = False
            self._segment.unlink()

    def close(self) -> None:
        """Drop the views, unmap; the owner also removes the name.  Idempotent."""
        self.unlink()
        self.arrays.clear()
        if self._segment is None:
            return
        gc.collect()  # Views in reference cycles, as tracebacks make them, hold the mapping, too.
        segment, self._segment = self._segment, None
        segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
