"""Free page reporting (VIRTIO 1.3, section 5.5.6.7): every writable buffer is memory not needed.

Invariant:
    elements == accepted + not_writable + empty + unaligned + outside + poisoned
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.balloon.config_space import ConfigSpace
from devices.balloon.handler import NO_RANGES
from devices.balloon.layout import BALLOON_PAGE_SIZE, DISCARD_RANGE, F_PAGE_POISON
from devices.memory.address_space import NO_REGION, AddressSpace
from devices.virtio.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingStatistics:
    """Since the device was made: requests, their elements, and why elements were dropped."""

    requests: int = 0
    elements: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    not_writable: int = 0
    empty: int = 0
    unaligned: int = 0
    outside: int = 0
    poisoned: int = 0


_Flags = npt.NDArray[np.bool_]


class ReportingHandler:
    """Turns reports into ranges.

    config:         if PAGE_POISON is negotiated and `poison_val` is not 0, the guest expects to
                    find that value in its pages, and nothing is discarded, as in QEMU
    granule_bytes:  the host's page size: a range that is not made of whole ones is not discarded
    """

    def __init__(
        self, *, features: int, config: ConfigSpace, granule_bytes: int = BALLOON_PAGE_SIZE
    ) -> None:
        self._poison = bool(features >> F_PAGE_POISON & 1)
        self._config = config
        self._granule_bytes = np.uint64(granule_bytes)
        self._counts = dict.fromkeys(ReportingStatistics.__dataclass_fields__, 0)

    def ranges(self, chain: Chain, address_space: AddressSpace) -> npt.NDArray[Any]:
        addr = chain.writable["addr"]
        length = chain.writable["len"].astype(np.uint64)
        region = address_space.indices_of(addr, length)
        aligned = (addr | length) % self._granule_bytes == 0
        good = aligned & (region != NO_REGION)  # An empty one lies in no region.
        accepted = int(np.count_nonzero(good))
        counts = self._counts
        counts["requests"] += 1
        counts["elements"] += len(chain.readable) + len(chain.writable)
        counts["not_writable"] += len(chain.readable)
        if accepted < len(good):
            self._count_bad(length == 0, aligned, good)
        if self._poison and self._config.words[0]["poison_val"]:
            counts["poisoned"] += accepted
            return NO_RANGES
        if accepted < len(good):
            addr, length, region = addr[good], length[good], region[good]
        ranges = np.empty(accepted, dtype=DISCARD_RANGE)
        ranges["region"] = region
        ranges["offset"] = addr - address_space.starts[region]
        ranges["length"] = length
        counts["accepted"] += accepted
        counts["accepted_bytes"] += int(length.sum())
        return ranges

    def _count_bad(self, empty: _Flags, aligned: _Flags, good: _Flags) -> None:
        counts = self._counts
        counts["empty"] += int(np.count_nonzero(empty))
        counts["unaligned"] += int(np.count_nonzero(~empty & ~aligned))
        counts["outside"] += int(np.count_nonzero(~empty & aligned & ~good))

    def reset(self) -> None:
        """Nothing is remembered from one report to the next."""

    def statistics(self) -> ReportingStatistics:
        return ReportingStatistics(**self._counts)

    def validate(self) -> None:
        """Assert the invariant."""
        seen = self.statistics()
        dropped = seen.not_writable + seen.empty + seen.unaligned + seen.outside + seen.poisoned
        assert seen.elements == seen.accepted + dropped
