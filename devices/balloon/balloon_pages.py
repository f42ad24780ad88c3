"""Which of a guest's pages are in the balloon, as the device has been told.

A byte a page, which the system backs only where a page has ever been in the balloon.  A host that
gives memory back in larger pages than the guest names (hugetlbfs) may discard one only when all
its parts are in the balloon (QEMU: PartiallyBalloonedPage).

Invariant:
    pages == number of bytes that are 1 == inflated - deflated
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import (
    BALLOON_PAGE_SIZE,
    DISCARD_RANGE,
    PAGE_SPAN,
    PAGES_TAKEN,
    PFN,
)
from devices.balloon.page_kernels import deflate_pages, inflate_pages
from devices.memory.address_space import AddressSpace

_PFNS: Final = 1 << 32


class BalloonPages:
    """The record, over all pages of an address space that a number of 32 bits can name.

    granule_bytes:  the host's page size: a power of two of at least 4 KiB

    Raises ValueError for any other granule.
    """

    def __init__(
        self, address_space: AddressSpace, *, granule_bytes: int = BALLOON_PAGE_SIZE
    ) -> None:
        if granule_bytes < BALLOON_PAGE_SIZE or granule_bytes & (granule_bytes - 1):
            raise ValueError(
                f"host pages of {granule_bytes} bytes; a power of two from {BALLOON_PAGE_SIZE} on "
                f"would work"
            )
        self._granule: Final = granule_bytes // BALLOON_PAGE_SIZE
        self._map(address_space)

    def _map(self, address_space: AddressSpace) -> None:
        self._spans = np.zeros(len(address_space.regions), PAGE_SPAN)
        base = 0
        for index, region in enumerate(address_space.regions):
            first = -(-region.guest_addr // BALLOON_PAGE_SIZE)
            end = min(region.end_addr // BALLOON_PAGE_SIZE, _PFNS)
            first, pages = min(first, _PFNS), max(0, end - first)
            offset = first * BALLOON_PAGE_SIZE - region.guest_addr if pages else 0
            self._spans[index] = (first, pages, offset, base)
            base += pages
        self._inside = np.zeros(base, np.uint8)
        self.pages = 0

    @property
    def size_pages(self) -> int:
        """Pages that could be in the balloon: all of the guest's."""
        return len(self._inside)

    def inflate(self, pfns: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Put pages, u4[n] in any order, into the balloon.

        Returns what to discard for it, `DISCARD_RANGE[m]`, and what became of the numbers,
        `PAGES_TAKEN[1]`.  A page that was in the balloon is discarded again: the driver may have
        used it without telling (5.5.6, without MUST_TELL_HOST).
        """
        ordered, taken = np.sort(pfns), np.zeros(1, PAGES_TAKEN)
        ranges = np.zeros(len(ordered), DISCARD_RANGE)
        inflate_pages(ordered, self._spans, self._inside, self._granule, ranges, taken)
        self.pages += int(taken[0]["accepted"])
        return ranges[: taken[0]["ranges"]], taken

    def deflate(self, pfns: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Take pages, u4[n] in any order, out of it; returns `PAGES_TAKEN[1]`."""
        ordered, taken = np.sort(pfns), np.zeros(1, PAGES_TAKEN)
        deflate_pages(ordered, self._spans, self._inside, taken)
        self.pages -= int(taken[0]["accepted"])
        return taken

    def pfns(self) -> npt.NDArray[Any]:
        """The numbers of all pages in the balloon, u4[pages], ascending."""
        inside = np.flatnonzero(self._inside)
        span = self._spans[np.searchsorted(self._spans["base"], inside, side="right") - 1]
        found: npt.NDArray[Any] = (inside - span["base"] + span["first_pfn"]).astype(PFN)
        return found

    def clear(self) -> None:
        """The balloon is empty: the guest has all its pages."""
        self._inside[:] = 0
        self.pages = 0

    def replace(self, address_space: AddressSpace) -> None:
        """The guest's memory has changed; what is in the balloon and still exists stays in it."""
        pfns = self.pfns()
        self._map(address_space)
        self.inflate(pfns)

    def validate(self) -> None:
        """Assert the invariant."""
        assert self.pages == int(self._inside.sum(dtype=np.int64))
