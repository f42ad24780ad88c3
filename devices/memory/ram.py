"""Guest RAM: a memfd, with real pages behind it or with one word a page.

    memfd       `size_bytes` of memory, really faulted and really given back
    accounted   8 bytes a page: what the page holds, 0 while the host has nothing behind it.  A
                guest of 1 TiB fits a laptop, and every check of contents still holds

Both look alike to kernels: `words[pfn << shift]` is the first word of page `pfn`.

Accounted RAM may be backed by huge pages: then a word for each 2 MiB says whether one host page is
behind all of it.  A page that became resident with its neighbours holds BACKED.
"""

import mmap
import os
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

PAGE_SIZE: Final = 4096
HUGE_SHIFT: Final = 9
HUGE_PAGES: Final = 1 << HUGE_SHIFT  # Pages of 4 KiB in a huge page.
BACKED: Final = 1  # In no page's own words: those hold a generation of at least 2 << 8.

_NO_HUGE_PAGES: Final[npt.NDArray[np.int64]] = np.zeros(0, np.int64)
RamKind = Literal["memfd", "accounted"]


class RamView(NamedTuple):
    """Guest RAM as kernels take it."""

    words: npt.NDArray[np.int64]  # i8: the first word of page pfn is words[pfn << shift]
    shift: int  # 9 for memfd, 0 for accounted
    accounted: int
    huge: npt.NDArray[np.int64] = _NO_HUGE_PAGES  # i8 for each 2 MiB; empty: pages of 4 KiB


class GuestRam:
    """A guest's RAM.  `create` it in the supervisor, `attach` by descriptor elsewhere."""

    def __init__(self, fd: int, kind: RamKind, size_bytes: int, *, huge: bool = False) -> None:
        self.fd: Final = fd
        self.kind: Final = kind
        self.size_bytes: Final = size_bytes
        self.huge: Final = huge
        self._mapping: mmap.mmap | None = None

    @classmethod
    def create(cls, kind: RamKind, size_bytes: int, *, huge: bool = False) -> Self:
        """A new memfd, nothing resident; `huge`: accounted as backed by huge pages."""
        assert kind == "accounted" or not huge
        fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        ram = cls(fd, kind, size_bytes, huge=huge)
        os.ftruncate(fd, ram.file_bytes)
        return ram

    @property
    def file_bytes(self) -> int:
        """Size of the file behind it."""
        if self.kind == "memfd":
            return self.size_bytes
        return (self._words + self._huge_words) * 8

    @property
    def _words(self) -> int:
        return self.size_bytes // (8 if self.kind == "memfd" else PAGE_SIZE)

    @property
    def _huge_words(self) -> int:
        return self.size_bytes // PAGE_SIZE // HUGE_PAGES if self.huge else 0

    def view(self) -> RamView:
        """Map it, shared and writable.  The view must be dropped before `close`."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self.fd, self.file_bytes)
        words: npt.NDArray[Any] = np.frombuffer(self._mapping, np.int64)
        words, huge = words[: self._words], words[self._words :]
        return RamView(words, 9 if self.kind == "memfd" else 0, int(self.kind == "accounted"), huge)

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
