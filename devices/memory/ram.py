"""Guest RAM: a memfd, with real pages behind it or with one word a page.

    memfd       `size_bytes` of memory, really faulted and really given back
    accounted   8 bytes a page: what the page holds, 0 while the host has nothing behind it.  A
                guest of 1 TiB fits a laptop, and every check of contents still holds

Both look alike to kernels: `words[pfn << shift]` is the first word of page `pfn`.

RAM may be backed by huge pages: then a word for each 2 MiB, behind the RAM in its file, says
whether one host page is behind all of it.  Of accounted RAM a page that became resident with its
neighbours holds BACKED.  Of a memfd the word says that a vCPU has asked the system for a huge page
since the host gave all of the 2 MiB back: whether it got one, only the system knows.  Both sides
write that word plainly, a vCPU 1 when it touches its memory, the host 0 when all of it is gone: if
they meet, the next touch asks again, or does not, and nothing but the pace depends on it.

Pages of accounted RAM may be swapped out by the host: then a mark for each says so (`swap_layout`).
The word of a swapped page stays where it is, and stands for its copy in the swap.
"""

import os
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from devices.memory.mapping import map_file
from devices.memory.swap_layout import SWAP_CONTROL, SWAP_MARK, SWAP_TRAFFIC

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
HUGE_SHIFT: Final = 9
HUGE_PAGES: Final = 1 << HUGE_SHIFT  # Pages of 4 KiB in a huge page.
BACKED: Final = 1  # In no page's own words: those hold a generation of at least 2 << 8.

NO_HUGE_PAGES: Final[npt.NDArray[np.int64]] = np.zeros(0, np.int64)
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
    huge: npt.NDArray[np.int64] = NO_HUGE_PAGES  # i8 for each 2 MiB; empty: pages of 4 KiB
    swap: SwapView | NoSwap = NoSwap()  # Its class decides what is compiled.

    def swap_marks(self) -> npt.NDArray[Any]:
        """SWAP_MARK for each page; empty if the host cannot swap."""
        return self.swap.marks if isinstance(self.swap, SwapView) else _NO_MARKS


class GuestRam:
    """A guest's RAM.  `create` it in the supervisor, make one of its descriptor elsewhere.

    huge:         backed by huge pages where possible
    swap_actors:  how many actors access it, if the host can swap it out; else 0
    """

    def __init__(
        self, fd: int, kind: RamKind, size_bytes: int, *, huge: bool = False, swap_actors: int = 0
    ) -> None:
        assert kind == "accounted" or not swap_actors
        self.fd: Final = fd
        self.kind: Final = kind
        self.size_bytes: Final = size_bytes
        self.huge: Final = huge
        self.swap_actors: Final = swap_actors
        self._mapping: npt.NDArray[np.uint8] | None = None

    @classmethod
    def create(
        cls, kind: RamKind, size_bytes: int, *, huge: bool = False, swap_actors: int = 0
    ) -> Self:
        """A new memfd, nothing resident."""
        fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        ram = cls(fd, kind, size_bytes, huge=huge, swap_actors=swap_actors)
        os.ftruncate(fd, ram.file_bytes)
        if kind == "memfd" and huge:  # Now, so that what these words take of the file is known.
            os.posix_fallocate(fd, size_bytes, ram.file_bytes - size_bytes)
        return ram

    @property
    def file_bytes(self) -> int:
        """Size of the file behind it."""
        return self._parts()[-1]

    def _parts(self) -> tuple[int, int, int, int, int]:
        """Where words, huge words, marks, traffic and control end in the file."""
        pages = self.size_bytes // PAGE_SIZE
        words = self.size_bytes if self.kind == "memfd" else pages * 8
        huge = words + (pages // HUGE_PAGES * 8 if self.huge else 0)
        if not self.swap_actors:
            return words, huge, huge, huge, huge
        marks = huge + pages * SWAP_MARK.itemsize
        traffic = marks + self.swap_actors * SWAP_TRAFFIC.itemsize
        return words, huge, marks, traffic, traffic + SWAP_CONTROL.itemsize

    def _map(self) -> npt.NDArray[np.uint8]:
        if self._mapping is None:
            self._mapping = map_file(self.fd, self.file_bytes)
        return self._mapping

    def view(self) -> RamView:
        """Map it, shared and writable; the mapping lives as long as any view of it."""
        whole = self._map()
        words, huge, _, _, _ = self._parts()
        accounted = self.kind == "accounted"
        return RamView(
            words=whole[:words].view(np.int64),
            shift=0 if accounted else PAGE_SHIFT - 3,
            accounted=int(accounted),
            huge=whole[words:huge].view(np.int64),
            swap=self.swap_view() if self.swap_actors else NoSwap(),
        )

    def swap_view(self) -> SwapView:
        """That part of the view, of RAM that the host can swap out."""
        assert self.swap_actors
        whole = self._map()
        _, huge, marks, traffic, _ = self._parts()
        return SwapView(whole[huge:marks].view(SWAP_MARK), whole[marks:traffic].view(SWAP_TRAFFIC))

    def swap_control(self) -> npt.NDArray[Any]:
        """SWAP_CONTROL[1], of RAM that the host can swap out."""
        assert self.swap_actors
        return self._map()[self._parts()[-2] :].view(SWAP_CONTROL)

    def file_resident_bytes(self) -> int:
        """What `memfd` RAM really occupies now (st_blocks, without what lies behind the RAM): the
        ground truth."""
        behind = -(-(self.file_bytes - self.size_bytes) // PAGE_SIZE) * PAGE_SIZE
        return os.fstat(self.fd).st_blocks * 512 - behind

    def close(self) -> None:
        """Close the descriptor; the mapping goes with the last view of it."""
        self._mapping = None
        os.close(self.fd)
