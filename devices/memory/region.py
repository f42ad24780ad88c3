"""Arrays in one segment of `multiprocessing.shared_memory`, owned in one place.

    region = Region.create({"zones": (ZONE, 2), "pages": (PAGE, 1 << 18)})
    region.arrays["pages"]                     # views into the segment
    Region.attach(region.name, layout)         # the same, in a child of the owner
    region.unlink()                            # the name is gone, the memory lives on
    region.close()                             # views dropped, unmapped

The owner unlinks the name as soon as every child has attached: from then on nothing is left behind
however the processes end; before, multiprocessing's resource tracker removes it.  Who attaches does
so without `SharedMemory`, which would tell the tracker of the name once more, perhaps too late.

`SharedMemory.close` raises `BufferError` while numpy views live, also from `__del__` when the
process ends, and a traceback may hold a view for long.  So the region maps the segment itself, and
the mapping goes with the last view.
"""

import mmap
import os
from collections.abc import Mapping
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from devices.memory.mapping import map_file

Layout = Mapping[str, tuple[np.dtype[Any], int]]

_SHM: Final = Path("/dev/shm")
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

    def __init__(self, layout: Layout, memory: Any, name: str) -> None:
        offsets, size_bytes = place(layout)
        self.layout: Final = dict(layout)
        self.name: Final = name
        self.size_bytes: Final = size_bytes
        self.arrays: dict[str, npt.NDArray[Any]] = {
            name: np.ndarray((count,), dtype, memory, offsets[name])
            for name, (dtype, count) in layout.items()
        }
        self._owned: shared_memory.SharedMemory | None = None

    @classmethod
    def private(cls, layout: Layout) -> Self:
        """The same arrays in this process's own memory, zeroed: for a run in one process."""
        return cls(layout, mmap.mmap(-1, place(layout)[1]), "")

    @classmethod
    def create(cls, layout: Layout) -> Self:
        """A new segment, zeroed.

        OSError where /dev/shm is too small: a touch would be a SIGBUS.
        """
        _, size_bytes = place(layout)
        room = os.statvfs(_SHM)
        if size_bytes > room.f_bavail * room.f_frsize:
            raise OSError(
                f"/dev/shm has {room.f_bavail * room.f_frsize >> 20} MiB free and the guest's state"
                f" needs {size_bytes >> 20} MiB; enlarge it (mount -o remount,size=... /dev/shm)"
            )
        segment = shared_memory.SharedMemory(create=True, size=size_bytes)
        try:
            segment.close()
            region = cls.attach(segment.name, layout)
        except BaseException:
            segment.unlink()
            raise
        region._owned = segment
        return region

    @classmethod
    def attach(cls, name: str, layout: Layout) -> Self:
        """The segment of another process of the same owner; FileNotFoundError once unlinked."""
        _, size_bytes = place(layout)
        with (_SHM / name).open("r+b") as file:
            found_bytes = os.fstat(file.fileno()).st_size
            if found_bytes < size_bytes:
                raise ValueError(f"segment {name}: {found_bytes} of {size_bytes} bytes")
            memory = map_file(file.fileno(), size_bytes)
        return cls(layout, memory, name)

    def part(self, name: str) -> tuple[int, int]:
        """Where in the segment an array begins, and its size: bytes."""
        return place(self.layout)[0][name], self.arrays[name].nbytes

    def open(self) -> int:
        """A descriptor of the segment, for somebody who gets no name; the caller closes it.

        FileNotFoundError once it is unlinked.
        """
        return os.open(_SHM / self.name, os.O_RDWR | os.O_CLOEXEC)

    def unlink(self) -> None:
        """Remove the segment's name; the memory stays until all have closed it."""
        segment, self._owned = self._owned, None
        if segment is not None:
            segment.unlink()

    def close(self) -> None:
        """Drop the views; the owner also removes the name.  Idempotent.

        A view that someone else still holds keeps the memory mapped until it goes, too.
        """
        self.unlink()
        self.arrays.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
