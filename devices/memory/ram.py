"""Guest RAM: a memfd, with real pages behind it or with one word a page.

    memfd       `size_bytes` of memory, really faulted and really given back
    accounted   8 bytes a page: what the page holds, 0 while the host has nothing behind it.  A
                guest of 1 TiB fits a laptop, and every check of contents still holds

Both look alike to kernels: `words[pfn << shift]` is the first word of page `pfn`.
"""

import mmap
import os
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

PAGE_SIZE: Final = 4096
RamKind = Literal["memfd", "accounted"]


class RamView(NamedTuple):
    """Guest RAM as kernels take it."""

    words: npt.NDArray[np.int64]  # i8: the first word of page pfn is words[pfn << shift]
    shift: int  # 9 for memfd, 0 for accounted
    accounted: int


class GuestRam:
    """A guest's RAM.  `create` it in the supervisor, `attach` by descriptor elsewhere."""

    def __init__(self, fd: int, kind: RamKind, size_bytes: int) -> None:
        self.fd: Final = fd
        self.kind: Final = kind
        self.size_bytes: Final = size_bytes
        self._mapping: mmap.mmap | None = None

    @classmethod
    def create(cls, kind: RamKind, size_bytes: int) -> Self:
        """A new memfd, nothing resident."""
        fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        ram = cls(fd, kind, size_bytes)
        os.ftruncate(fd, ram.file_bytes)
        return ram

    @property
    def file_bytes(self) -> int:
        """Size of the file behind it."""
        return self.size_bytes if self.kind == "memfd" else self.size_bytes // PAGE_SIZE * 8

    def view(self) -> RamView:
        """Map it, shared and writable.  The view must be dropped before `close`."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self.fd, self.file_bytes)
        words: npt.NDArray[Any] = np.frombuffer(self._mapping, np.int64)
        return RamView(words, 9 if self.kind == "memfd" else 0, int(self.kind == "accounted"))

    def file_resident_bytes(self) -> int:
        """What the file really occupies now (st_blocks); for `memfd` RAM, the ground truth."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Close the descriptor.  A mapping with live views goes with the last of them."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            try:
                mapping.close()
            except BufferError:  # A view lives on; it unmaps when it goes.
                del mapping
        os.close(self.fd)
