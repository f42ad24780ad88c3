"""The statistics queue (VIRTIO 1.3, section 5.5.6.4): the guest's memory figures.

The driver sends one buffer when it starts.  The device keeps it; to ask for new figures it gives
the buffer back, and the driver fills it again.  Tags may come in any order and number; unknown
ones are ignored, and so is what is no whole entry.

    empty  -- a buffer comes -->  held  -- give_back() -->  empty
    held   -- another comes -->   held, and the older one is given back at once
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from devices.balloon.handler import NO_RANGES
from devices.balloon.layout import STATS_BYTES_MAX, STATS_ENTRY, STATS_TAGS
from devices.balloon.readable import copy_readable
from devices.memory.address_space import AddressSpace
from devices.virtio.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStatistics:
    """What the guest said last, and since the device was made, what was odd about it.

    latest:  by the names of `STATS_TAGS`; whatever 64 bits a guest likes: telemetry, not a fact
    """

    latest: Mapping[str, int] = field(default_factory=dict)
    updates: int = 0
    unknown_tags: int = 0
    ignored_bytes: int = 0
    bad_buffers: int = 0
    extra_buffers: int = 0  # while one was held


class StatsHandler:
    """Reads figures; which buffer is held."""

    def __init__(self) -> None:
        self._held: int | None = None
        self._latest: dict[str, int] = {}
        self._updates = self._unknown = self._ignored = self._bad = self._extra = 0

    def ranges(self, chain: Chain, address_space: AddressSpace) -> npt.NDArray[Any]:
        read = copy_readable(chain.readable, address_space, STATS_BYTES_MAX)
        torn_bytes = len(read.data) % STATS_ENTRY.itemsize
        entries = read.data[: len(read.data) - torn_bytes].view(STATS_ENTRY).tolist()
        self._latest = {STATS_TAGS[tag]: value for tag, value in entries if tag in STATS_TAGS}
        self._updates += 1
        self._unknown += sum(tag not in STATS_TAGS for tag, _ in entries)
        self._ignored += read.excess_bytes + torn_bytes
        self._bad += read.unreachable + len(chain.writable)
        return NO_RANGES

    def hold(self, head: int) -> int | None:
        """Keep the buffer with this head; returns that of the older one, to be given back."""
        older, self._held = self._held, head
        self._extra += older is not None
        return older

    def give_back(self) -> int | None:
        """The head that was held, and is no more."""
        head, self._held = self._held, None
        return head

    def reset(self) -> None:
        """The buffer is the driver's again."""
        self._held = None

    def statistics(self) -> GuestStatistics:
        return GuestStatistics(
            latest=dict(self._latest),
            updates=self._updates,
            unknown_tags=self._unknown,
            ignored_bytes=self._ignored,
            bad_buffers=self._bad,
            extra_buffers=self._extra,
        )

    def validate(self) -> None:
        """Assert that no more buffers were found extra than came."""
        assert self._extra <= self._updates
