"""The driver's half of a split virtqueue (VIRTIO 1.3, sections 2.7.13 and 2.7.14), without I/O.

`add` lays requests into the ring, `publish` makes them visible all at once and says whether the
device wants to be notified, `pop_used` takes back what the device has used.  Descriptors and free
list are kept in private memory, for a device could overwrite those in the ring (as Linux does
since 5.13); what it returns is checked against what it was lent.

Invariants:
    free descriptors + sum(descriptors lent under each head) == N
    len(tokens) == in_flight == added - popped
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.virtio.errors import DeviceError
from devices.virtio.kernels import add_chain, ask_notification, publish_idx, take_used
from devices.virtio.layout import (
    CHAIN_BYTES_MAX,
    F_EVENT_IDX,
    F_INDIRECT_DESC,
    FLAGS_WORD,
    FREE_LIST,
    IDX_MASK,
    NO_DESCRIPTORS,
    NO_NOTIFICATION,
    SLOT,
    TOO_MANY_BYTES,
    USED_CHAIN,
    USED_IDX_JUMPED,
    USED_NEVER_LENT,
    USED_TOO_LONG,
    avail_words,
    used_words,
)
from devices.virtio.queue_layout import QueueViews, initialize

_BREACHES: Final = {
    USED_IDX_JUMPED: "the device returned more chains than it was lent",
    USED_NEVER_LENT: "the device returned a chain that it was not lent",
    USED_TOO_LONG: "the device says it wrote more than a chain can hold",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverQueueStatistics:
    """Since the queue was made: chains, calls and notifications; `in_flight` is now."""

    added: int
    popped: int
    in_flight: int
    ring_full: int
    notifications_wanted: int


class DriverQueue:
    """Lends chains of buffers to a device.

    views:     from `QueueLayout.views`; the memory is initialized
    features:  the negotiated feature bits; INDIRECT_DESC and EVENT_IDX matter here
    start:     what the free-running indices begin at, 0 .. 65535

    Notifications are enabled in the beginning.  Every method but `initialize`, `statistics` and
    `validate` raises DeviceError once the device has broken the protocol.
    """

    def __init__(self, views: QueueViews, *, features: int, start: int = 0) -> None:
        self.size: Final = len(views.descriptors)
        self._views = views
        self._event_idx = features >> F_EVENT_IDX & 1
        indirect = features >> F_INDIRECT_DESC & 1
        self._table_entries = len(views.tables) // self.size if indirect else 0
        self._used_event_word = avail_words(self.size) - 1
        self._avail_event_word = used_words(self.size) - 1
        self._slots = np.zeros(self.size, dtype=SLOT)
        self._free = np.zeros(1, dtype=FREE_LIST)
        self._taken = np.zeros(self.size, dtype=USED_CHAIN)
        self._tokens: dict[int, Any] = {}
        self._added = self._popped = self._ring_full = self._notifications_wanted = 0
        self.initialize(start)

    def initialize(self, start: int = 0) -> None:
        """Empty the queue and forget what is lent: the device must not be using it."""
        initialize(self._views, start)
        self._slots["next"] = np.arange(1, self.size + 1)
        self._slots["lent"] = 0
        self._free[0] = (0, self.size)
        self._popped += len(self._tokens)
        self._tokens.clear()
        self._avail_idx = self._published_idx = self._last_used = start
        self.broken: str | None = None

    def add(self, readable: npt.NDArray[Any], writable: npt.NDArray[Any], token: Any) -> bool:
        """Lend a chain of buffers, `SEGMENT[n]` each, with the readable ones first.

        `pop_used` will return `token`.  False, and nothing changed: the ring is full.
        Raises ValueError for a chain that no ring of this size can hold.
        """
        self._check_whole()
        count = len(readable) + len(writable)
        if not 1 <= count <= self.size:  # 2.7.5.3.1: longer ones not even in a table.
            raise ValueError(f"a chain of {count} buffers; 1 to {self.size}, the ring's size, work")
        views = self._views
        head = add_chain(
            views.descriptors,
            views.avail,
            views.tables,
            views.tables_addr,
            self._table_entries,
            self._slots,
            self._free,
            readable,
            writable,
            self._avail_idx,
        )
        if head == TOO_MANY_BYTES:
            raise ValueError(f"a chain of more than {CHAIN_BYTES_MAX} bytes; split it")
        if head == NO_DESCRIPTORS:
            self._ring_full += 1
            return False
        self._avail_idx = (self._avail_idx + 1) & IDX_MASK
        self._tokens[int(head)] = token
        self._added += 1
        return True

    def publish(self) -> bool:
        """Make what was added visible to the device; whether it must be notified (2.7.10.1)."""
        self._check_whole()
        if self._avail_idx == self._published_idx:
            return False
        wanted = publish_idx(
            self._views.avail,
            self._views.used,
            self._avail_event_word,
            self._event_idx,
            self._published_idx,
            self._avail_idx,
        )
        self._published_idx = self._avail_idx
        self._notifications_wanted += bool(wanted)
        return bool(wanted)

    def pop_used(self) -> list[tuple[Any, int]]:
        """All that the device has used by now: the token, and the bytes it wrote, of each chain.

        Raises DeviceError for a chain or a length that it was never lent.
        """
        self._check_whole()
        outstanding = (self._published_idx - self._last_used) & IDX_MASK
        if outstanding == 0:
            return []
        count = take_used(
            self._views.used,
            self._views.used_ring,
            self._last_used,
            outstanding,
            self._slots,
            self._free,
            self._taken,
        )
        if count < 0:
            self.broken = _BREACHES[count]
            raise DeviceError(self.broken)
        self._last_used = (self._last_used + count) & IDX_MASK
        self._popped += count
        return [(self._tokens.pop(head), length) for head, length in self._taken[:count].tolist()]

    def disable_notifications(self) -> None:
        """Advise the device that used buffers need no notification; some may come still."""
        self._check_whole()
        if self._event_idx:  # As far away as an index can be.
            self._ask(self._used_event_word, self._last_used - 1)
        else:
            self._ask(FLAGS_WORD, NO_NOTIFICATION)

    def enable_notifications(self) -> bool:
        """Ask for a notification of the next used chain; True: one is there, look again."""
        self._check_whole()
        if self._event_idx:
            used_idx = self._ask(self._used_event_word, self._last_used)
        else:
            used_idx = self._ask(FLAGS_WORD, 0)
        return used_idx != self._last_used

    def statistics(self) -> DriverQueueStatistics:
        return DriverQueueStatistics(
            added=self._added,
            popped=self._popped,
            in_flight=len(self._tokens),
            ring_full=self._ring_full,
            notifications_wanted=self._notifications_wanted,
        )

    def validate(self) -> None:
        """Walk the free list and all chains, and assert the invariants of a queue that is whole."""
        assert self.broken is None
        assert self._added - self._popped == len(self._tokens)
        assert (self._avail_idx - self._last_used) & IDX_MASK == len(self._tokens)
        seen = self._walk(int(self._free[0]["head"]), int(self._free[0]["count"]))
        for head in self._tokens:
            assert self._slots[head]["lent"] > 0
            seen += self._walk(head, int(self._slots[head]["lent"]))
        assert sorted(seen) == list(range(self.size))
        assert np.count_nonzero(self._slots["lent"]) == len(self._tokens)

    def _walk(self, at: int, count: int) -> list[int]:
        walked = []
        for _ in range(count):
            walked.append(at)
            at = int(self._slots[at]["next"])
        return walked

    def _ask(self, word: int, value: int) -> int:
        return int(ask_notification(self._views.avail, word, value & IDX_MASK, self._views.used))

    def _check_whole(self) -> None:
        if self.broken is not None:
            raise DeviceError(f"the queue is broken: {self.broken}")
