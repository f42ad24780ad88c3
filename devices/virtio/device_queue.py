"""The device's half of a split virtqueue (VIRTIO 1.3, section 2.7), without I/O.

The driver may be hostile, and may write while we read: a chain is copied once into private memory,
checked there and used from there.  A breach of the protocol raises DriverError and leaves the queue
broken, as QEMU's `virtio_error` does: the driver must reset it.  What the addresses in a chain
mean, and whether they lie in memory, is the device's to check.

Invariant:
    in_flight == popped - pushed == number of heads that `push_used` accepts
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from devices.memory.address_space import AddressSpace
from devices.virtio.chain import Chain
from devices.virtio.errors import DriverError
from devices.virtio.kernels import (
    ask_notification,
    publish_idx,
    put_used,
    take_chain,
    walk_chain,
)
from devices.virtio.layout import (
    AVAIL_IDX_JUMPED,
    CHAIN_COMPLETE,
    CHAIN_IN_TABLE,
    CHAIN_LOOPS,
    CHAIN_NONE,
    CHAIN_TOO_MANY_BYTES,
    F_EVENT_IDX,
    F_INDIRECT_DESC,
    FLAGS_WORD,
    HEAD_OUTSIDE,
    IDX_MASK,
    INDIRECT_AND_NEXT,
    INDIRECT_FORBIDDEN,
    NEXT_OUTSIDE,
    NO_NOTIFICATION,
    READABLE_AFTER_WRITABLE,
    SEGMENT,
    TABLE_ENTRIES_MAX,
    VIRTQ_DESC,
    WALK,
    avail_words,
    used_words,
)
from devices.virtio.queue_layout import QueueViews

_BREACHES: Final = {
    AVAIL_IDX_JUMPED: "more chains are available than the ring has entries",
    HEAD_OUTSIDE: "the head of a chain is outside the descriptors",
    NEXT_OUTSIDE: "a descriptor's next is outside its table",
    CHAIN_LOOPS: "a chain is longer than its table",
    READABLE_AFTER_WRITABLE: "a readable buffer follows a writable one",
    CHAIN_TOO_MANY_BYTES: "the buffers of a chain are longer than 2^32 bytes in total",
    INDIRECT_FORBIDDEN: "an indirect table was not negotiated, or is named by another one",
    INDIRECT_AND_NEXT: "a descriptor has both the flags INDIRECT and NEXT",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQueueStatistics:
    """Since the queue was made: chains, and notifications that the driver wanted."""

    popped: int
    pushed: int
    in_flight: int
    notifications_wanted: int
    protocol_errors: int


class DeviceQueue:
    """Takes chains of buffers from a driver and gives them back.

    views:          from `find_queue`, or from `QueueLayout.views`
    address_space:  where indirect tables are looked up
    features:       the negotiated feature bits; INDIRECT_DESC and EVENT_IDX matter here
    start:          the first index to look at, 0 .. 65535 (the vring base of vhost-user)
    in_flight:      heads of chains from `start` on that a device before us took and did not give
                    back; `pop` takes them once more, in this order, before all others

    Notifications are enabled in the beginning.  Every method but `reset`, `statistics` and
    `validate` raises DriverError once the driver has broken the protocol.
    """

    def __init__(
        self,
        views: QueueViews,
        address_space: AddressSpace,
        *,
        features: int,
        start: int = 0,
        in_flight: Sequence[int] = (),
    ) -> None:
        self.size: Final = len(views.descriptors)
        self._views = views
        self._address_space = address_space
        self._event_idx = features >> F_EVENT_IDX & 1
        self._indirect = features >> F_INDIRECT_DESC & 1
        self._used_event_word = avail_words(self.size) - 1
        self._avail_event_word = used_words(self.size) - 1
        self._segments = np.zeros(self.size, dtype=SEGMENT)
        self._walk = np.zeros(1, dtype=WALK)
        self._lent: set[int] = set()
        self._popped = self._pushed = self._notifications_wanted = self._protocol_errors = 0
        self.reset(start, in_flight)

    def reset(self, start: int = 0, in_flight: Sequence[int] = ()) -> None:
        """Begin anew at index `start`; chains that were popped are never given back."""
        self._pushed += len(self._lent)
        self._lent.clear()
        self._again = deque(in_flight)
        self._last_avail = (start + len(in_flight)) & IDX_MASK
        self._used_idx = self._published_idx = start
        self.broken: str | None = None

    @property
    def next_avail_idx(self) -> int:
        """The index of the next chain that nobody has taken (the vring base of vhost-user)."""
        return self._last_avail

    @property
    def used_idx(self) -> int:
        """The index of the next chain to be given back, if they are given back in order."""
        return self._used_idx

    def pop(self) -> Chain | None:
        """The next available chain, or None.

        Raises DriverError for an index, a chain or an indirect table that breaks the protocol.
        """
        self._check_whole()
        taken_before = bool(self._again)
        code = self._copy_chain_again() if taken_before else self._copy_next_chain()
        if code == CHAIN_NONE:
            return None
        _, readable, writable, _, addr, size_bytes = self._walk[0].item()
        segments = self._segments
        if code == CHAIN_IN_TABLE:
            table = self._copy_table(addr, size_bytes)
            segments = np.zeros(readable + writable + len(table), dtype=SEGMENT)
            segments[: readable + writable] = self._segments[: readable + writable]
            code = walk_chain(table, 0, 0, segments, self._walk)
        if code != CHAIN_COMPLETE:
            self._break(_BREACHES[code])
        head, readable, writable, *_ = self._walk[0].item()
        if head in self._lent:
            self._break(f"the chain at descriptor {head} is made available twice")
        self._lent.add(head)
        if not taken_before:
            self._last_avail = (self._last_avail + 1) & IDX_MASK
        self._popped += 1
        return Chain(
            head,
            segments[:readable].copy(),
            segments[readable : readable + writable].copy(),
        )

    def push_used(self, head: int, length: int) -> None:
        """Give back the chain that `pop` returned with `head`; `length`: bytes we wrote to it."""
        self._check_whole()
        assert head in self._lent, f"no chain with head {head} was popped"
        self._lent.remove(head)
        put_used(self._views.used_ring, self._used_idx, head, length)
        self._used_idx = (self._used_idx + 1) & IDX_MASK
        self._pushed += 1

    def publish(self) -> bool:
        """Make what was pushed visible to the driver; whether it must be notified (2.7.7.2)."""
        self._check_whole()
        if self._used_idx == self._published_idx:
            return False
        wanted = publish_idx(
            self._views.used,
            self._views.avail,
            self._used_event_word,
            self._event_idx,
            self._published_idx,
            self._used_idx,
        )
        self._published_idx = self._used_idx
        self._notifications_wanted += bool(wanted)
        return bool(wanted)

    def disable_notifications(self) -> None:
        """Advise the driver that new chains need no notification; some may come still."""
        self._check_whole()
        if self._event_idx:  # As far away as an index can be.
            self._ask(self._avail_event_word, self._last_avail - 1)
        else:
            self._ask(FLAGS_WORD, NO_NOTIFICATION)

    def enable_notifications(self) -> bool:
        """Ask for a notification of the next chain; True: one is there, look again."""
        self._check_whole()
        if self._event_idx:
            avail_idx = self._ask(self._avail_event_word, self._last_avail)
        else:
            avail_idx = self._ask(FLAGS_WORD, 0)
        return avail_idx != self._last_avail or bool(self._again)

    def statistics(self) -> DeviceQueueStatistics:
        return DeviceQueueStatistics(
            popped=self._popped,
            pushed=self._pushed,
            in_flight=len(self._lent),
            notifications_wanted=self._notifications_wanted,
            protocol_errors=self._protocol_errors,
        )

    def validate(self) -> None:
        """Assert the invariants."""
        assert self._popped - self._pushed == len(self._lent) <= self.size
        taken = len(self._lent) + len(self._again)
        assert (self._last_avail - self._used_idx) & IDX_MASK == taken
        assert all(0 <= head < self.size for head in self._lent)

    def _copy_next_chain(self) -> int:
        """The chain at the next available index, in the ring itself; CHAIN_* or a breach."""
        views = self._views
        return int(
            take_chain(
                views.descriptors,
                views.avail,
                self._last_avail,
                self._indirect,
                self._segments,
                self._walk,
            )
        )

    def _copy_chain_again(self) -> int:
        """The next chain of those that a device before us had taken."""
        head = self._again.popleft()
        if head >= self.size:
            return HEAD_OUTSIDE
        self._walk[0] = 0
        self._walk[0]["head"] = head
        descriptors = self._views.descriptors
        return int(walk_chain(descriptors, head, self._indirect, self._segments, self._walk))

    def _copy_table(self, addr: int, size_bytes: int) -> np.ndarray[Any, Any]:
        """A private copy of an indirect table, `VIRTQ_DESC[n]` (2.7.5.3)."""
        entries, rest = divmod(size_bytes, VIRTQ_DESC.itemsize)
        if rest or not 1 <= entries <= TABLE_ENTRIES_MAX:
            self._break(f"an indirect table of {size_bytes} bytes")
        view = self._address_space.view(addr, size_bytes)
        if view is None:
            self._break(f"the indirect table at {addr:#x} is not inside one memory region")
        return view.copy().view(VIRTQ_DESC)

    def _ask(self, word: int, value: int) -> int:
        return int(ask_notification(self._views.used, word, value & IDX_MASK, self._views.avail))

    def _break(self, reason: str) -> NoReturn:
        self.broken = reason
        self._protocol_errors += 1
        raise DriverError(reason)

    def _check_whole(self) -> None:
        if self.broken is not None:
            raise DriverError(f"the queue is broken: {self.broken}")
