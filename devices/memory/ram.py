"""Guest RAM: a memfd, with real pages behind it or with one word a page.

    memfd       `size_bytes` of memory, really faulted and really given back
    accounted   8 bytes a page: what the page holds, 0 while the host has nothing behind it.  A
                guest of 1 TiB fits a laptop, and every check of contents still holds

Both look alike to kernels: `words[pfn << shift]` is the first word of page `pfn`.

Accounted RAM may be backed by huge pages: then a word for each 2 MiB says whether one host page is
behind all of it.  A page that became resident with its neighbours holds BACKED.

Its pages may be swapped out by the host: then a mark for each says so (`swap_layout`).  The word of
a swapped page stays where it is, and stands for its copy in the swap.
"""

import mmap
import os
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from devices.memory.swap_layout import SWAP_CONTROL, SWAP_MARK, SWAP_TRAFFIC

PAGE_SIZE: Final = 4096
HUGE_SHIFT: Final = 9
HUGE_PAGES: Final = 1 << HUGE_SHIFT  # Pages of 4 KiB in a huge page.
BACKED: Final = 1  # In no page's own words: those hold a generation of at least 2 << 8.

_NO_HUGE_PAGES: Final[npt.NDArray[np.int64]] = np.zeros(0, np.int64)
_NO_MARKS: Final[npt.NDArray[Any]] = np.zeros(0, SWAP_MARK)
RamKind = Literal["memfd", "accounted"]


class SwapView(NamedTuple):
    """What the host notes of accounted RAM that it can swap out, as kernels take it."""

    marks: npt.NDArray[Any]  # SWAP_MARK for each page
    traffic: npt.NDArray[Any]  # SWAP_TRAFFIC for each actor


class NoSwap(NamedTuple):
    """The host cannot swap: kernels are compiled without all that."""

    unused: int = 0


class RamView(NamedTuple):
    """Guest RAM as kernels take it."""

    words: npt.NDArray[np.int64]  # i8: the first word of page pfn is words[pfn << shift]
    shift: int  # 9 for memfd, 0 for accounted
    accounted: int
    huge: npt.NDArray[np.int64] = _NO_HUGE_PAGES  # i8 for each 2 MiB; empty: pages of 4 KiB
    swap: SwapView | NoSwap = NoSwap()  # Its class decides what is compiled.

    def swap_marks(self) -> npt.NDArray[Any]:
        """SWAP_MARK for each page; empty if the host cannot swap."""
        return self.swap.marks if isinstance(self.swap, SwapView) else _NO_MARKS


class GuestRam:
    """A guest's RAM.  `create` it in the supervisor, make one of its descriptor elsewhere.

    huge:         accounted as backed by huge pages
    swap_actors:  how many actors access it, if the host can swap it out; else 0
    """

    def __init__(
        self, fd: int, kind: RamKind, size_bytes: int, *, huge: bool = False, swap_actors: int = 0
    ) -> None:
        assert kind == "accounted" or not (huge or swap_actors)
        self.fd: Final = fd
        self.kind: Final = kind
        self.size_bytes: Final = size_bytes
        self.huge: Final = huge
        self.swap_actors: Final = swap_actors
        self._mapping: mmap.mmap | None = None

    @classmethod
    def create(
        cls, kind: RamKind, size_bytes: int, *, huge: bool = False, swap_actors: int = 0
    ) -> Self:
        """A new memfd, nothing resident."""
        fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        ram = cls(fd, kind, size_bytes, huge=huge, swap_actors=swap_actors)
        os.ftruncate(fd, ram.file_bytes)
        return ram

    @property
    def file_bytes(self) -> int:
        """Size of the file behind it."""
        return self.size_bytes if self.kind == "memfd" else self._parts()[-1]

    def _parts(self) -> tuple[int, int, int, int, int]:
        """Where words, huge words, marks, traffic and control end in the file of accounted RAM."""
        pages = self.size_bytes // PAGE_SIZE
        words = pages * 8
        huge = words + (pages // HUGE_PAGES * 8 if self.huge else 0)
        if not self.swap_actors:
            return words, huge, huge, huge, huge
        marks = huge + pages * SWAP_MARK.itemsize
        traffic = marks + self.swap_actors * SWAP_TRAFFIC.itemsize
        return words, huge, marks, traffic, traffic + SWAP_CONTROL.itemsize

    def _map(self) -> mmap.mmap:
        if self._mapping is None:
            self._mapping = mmap.mmap(self.fd, self.file_bytes)
        return self._mapping

    def view(self) -> RamView:
        """Map it, shared and writable.  The view must be dropped before `close`."""
        mapping = self._map()
        if self.kind == "memfd":
            return RamView(np.frombuffer(mapping, np.int64), 9, 0)
        whole: npt.NDArray[Any] = np.frombuffer(mapping, np.uint8)
        words, huge, _, _, _ = self._parts()
        return RamView(
            words=whole[:words].view(np.int64),
            shift=0,
            accounted=1,
            huge=whole[words:huge].view(np.int64),
            swap=self.swap_view() if self.swap_actors else NoSwap(),
        )

    def swap_view(self) -> SwapView:
        """That part of the view, of RAM that the host can swap out."""
        assert self.swap_actors
        whole: npt.NDArray[Any] = np.frombuffer(self._map(), np.uint8)
        _, huge, marks, traffic, _ = self._parts()
        return SwapView(whole[huge:marks].view(SWAP_MARK), whole[marks:traffic].view(SWAP_TRAFFIC))

    def swap_control(self) -> npt.NDArray[Any]:
        """SWAP_CONTROL[1], of RAM that the host can swap out; to be dropped like the view."""
        assert self.swap_actors
        whole: npt.NDArray[Any] = np.frombuffer(self._map(), np.uint8)
        return whole[self._parts()[-2] :].view(SWAP_CONTROL)

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
