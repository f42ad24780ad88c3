"""The inflate and deflate queues (VIRTIO 1.3, section 5.5.6): page numbers, 4 bytes each.

The driver gives a page away by its number, in units of 4 KiB, and has it back by the same.  A
number of no page, a number that comes twice and a page that is where it is to go already are
counted and otherwise ignored.  Inflated pages are discarded whatever `poison_val` says, as by
QEMU: the driver writes to a page when it has it back, and expects nothing in it.

Invariant:
    numbers == accepted + unchanged + duplicates + outside
"""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from devices.balloon.balloon_pages import BalloonPages
from devices.balloon.handler import NO_RANGES
from devices.balloon.layout import PFN, PFNS_MAX
from devices.balloon.readable import copy_readable
from devices.memory.address_space import AddressSpace
from devices.virtio.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNumberStatistics:
    """Since the device was made: buffers, the numbers in them, and what became of each."""

    requests: int = 0
    numbers: int = 0
    accepted: int = 0
    unchanged: int = 0  # inflated, and in the balloon already; deflated, and not in it
    duplicates: int = 0  # again in the same buffer
    outside: int = 0  # no page of the guest
    ignored_bytes: int = 0  # beyond the most numbers that are taken, or no whole number
    bad_buffers: int = 0  # writable ones, and those that lie in no memory


class PageNumberHandler:
    """Turns page numbers into ranges to discard, and keeps the record of what is in the balloon.

    inflate:   whether pages go into the balloon, or come out of it
    pfns_max:  numbers that are taken of one chain
    """

    def __init__(self, pages: BalloonPages, *, inflate: bool, pfns_max: int = PFNS_MAX) -> None:
        self._pages = pages
        self._inflate = inflate
        self._bytes_max = pfns_max * PFN.itemsize
        self._counts = dict.fromkeys(PageNumberStatistics.__dataclass_fields__, 0)

    def ranges(self, chain: Chain, address_space: AddressSpace) -> npt.NDArray[Any]:
        read = copy_readable(chain.readable, address_space, self._bytes_max)
        torn_bytes = len(read.data) % PFN.itemsize
        pfns = read.data[: len(read.data) - torn_bytes].view(PFN)
        if self._inflate:
            ranges, taken = self._pages.inflate(pfns)
        else:
            ranges, taken = NO_RANGES, self._pages.deflate(pfns)
        counts = self._counts
        counts["requests"] += 1
        counts["numbers"] += len(pfns)
        _, accepted, unchanged, outside, duplicates = taken[0].item()
        counts["accepted"] += accepted
        counts["unchanged"] += unchanged
        counts["outside"] += outside
        counts["duplicates"] += duplicates
        counts["ignored_bytes"] += read.excess_bytes + torn_bytes
        counts["bad_buffers"] += read.unreachable + len(chain.writable)
        return ranges

    def reset(self) -> None:
        """The balloon is empty."""
        self._pages.clear()

    def statistics(self) -> PageNumberStatistics:
        return PageNumberStatistics(**self._counts)

    def validate(self) -> None:
        """Assert the invariant, and the record's."""
        seen = self.statistics()
        assert seen.numbers == seen.accepted + seen.unchanged + seen.duplicates + seen.outside
        self._pages.validate()
