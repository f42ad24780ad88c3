"""Both halves of a ring beside lists of what was lent (VIRTIO 1.3, section 2.7)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from devices.virtio.chain import segments
from tests.devices.rings import EVENT_IDX, INDIRECT, Rings

Buffers = list[tuple[int, int]]

# Lengths that together stay below 2**32, the longest chain that there may be.
buffers = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 1 << 26)), max_size=5)


@dataclass
class Lent:
    """A chain, from being added to being popped again."""

    token: int
    readable: Buffers
    writable: Buffers
    descriptors: int
    head: int = -1
    length: int = 0


@dataclass
class Event:
    """When one side wants to be notified: `at` counts chains; with flags it stays until unset."""

    wanted: bool = True
    at: int = 0

    def fires(self, old: int, new: int, *, event_idx: bool) -> bool:
        if not event_idx:
            return self.wanted and new > old
        return self.wanted and old <= self.at < new


class Virtqueue(RuleBasedStateMachine):
    """Every chain is in one of five lists, and moves to the next by one call of one half."""

    @initialize(
        size=st.sampled_from([1, 2, 4, 8]),
        indirect=st.booleans(),
        event_idx=st.booleans(),
        start=st.sampled_from([0, 1, 65530, 65534, 65535]),
        table_entries=st.sampled_from([0, 3, 8]),
    )
    def begin(
        self, size: int, indirect: bool, event_idx: bool, start: int, table_entries: int
    ) -> None:
        features = (INDIRECT if indirect else 0) | (EVENT_IDX if event_idx else 0)
        self.rings = Rings(size, features=features, start=start, table_entries=table_entries)
        self.driver, self.device = self.rings.driver, self.rings.device
        self.size, self.start, self.event_idx = size, start, event_idx
        self.table_entries = table_entries if indirect else 0
        self.added: list[Lent] = []
        self.available: list[Lent] = []
        self.popped: list[Lent] = []
        self.pushed: list[Lent] = []
        self.used: list[Lent] = []
        self.lent = self.published = self.seen = self.returned = self.taken_back = 0
        self.kick, self.call = Event(), Event()

    def everywhere(self) -> list[Lent]:
        return self.added + self.available + self.popped + self.pushed + self.used

    @rule(readable=buffers, writable=buffers)
    def add(self, readable: Buffers, writable: Buffers) -> None:
        count = len(readable) + len(writable)
        if not 1 <= count <= self.size:
            return
        needed = 1 if 1 < count <= self.table_entries else count
        room = self.size - sum(lent.descriptors for lent in self.everywhere())
        ok = self.driver.add(as_segments(readable), as_segments(writable), self.lent)
        assert ok == (needed <= room)
        if ok:
            self.added.append(Lent(self.lent, readable, writable, needed))
            self.lent += 1

    @rule()
    def driver_publish(self) -> None:
        new = self.published + len(self.added)
        expected = self.kick.fires(self.published, new, event_idx=self.event_idx)
        assert self.driver.publish() == expected
        self.available += self.added
        self.added, self.published = [], new

    @rule()
    def pop(self) -> None:
        chain = self.device.pop()
        if not self.available:
            assert chain is None
            return
        lent = self.available.pop(0)
        assert chain is not None
        assert chain.readable.tolist() == lent.readable
        assert chain.writable.tolist() == lent.writable
        lent.head = chain.head
        self.popped.append(lent)
        self.seen += 1

    @precondition(lambda self: self.popped)
    @rule(data=st.data())
    def push_used(self, data: st.DataObject) -> None:
        lent = self.popped.pop(data.draw(st.integers(0, len(self.popped) - 1)))
        lent.length = data.draw(st.integers(0, sum(length for _, length in lent.writable)))
        self.device.push_used(lent.head, lent.length)
        self.pushed.append(lent)

    @rule()
    def device_publish(self) -> None:
        new = self.returned + len(self.pushed)
        expected = self.call.fires(self.returned, new, event_idx=self.event_idx)
        assert self.device.publish() == expected
        self.used += self.pushed
        self.pushed, self.returned = [], new

    @rule()
    def pop_used(self) -> None:
        assert self.driver.pop_used() == [(lent.token, lent.length) for lent in self.used]
        self.taken_back += len(self.used)
        self.used = []

    @rule()
    def device_enables_notifications(self) -> None:
        assert self.device.enable_notifications() == bool(self.available)
        self.kick = Event(at=self.seen)

    @rule()
    def device_disables_notifications(self) -> None:
        self.device.disable_notifications()
        self.kick = Event(wanted=False)

    @rule()
    def driver_enables_notifications(self) -> None:
        assert self.driver.enable_notifications() == bool(self.used)
        self.call = Event(at=self.taken_back)

    @rule()
    def driver_disables_notifications(self) -> None:
        self.driver.disable_notifications()
        self.call = Event(wanted=False)

    @invariant()
    def both_halves_are_whole(self) -> None:
        self.driver.validate()
        self.device.validate()
        assert self.driver.statistics().in_flight == len(self.everywhere())
        assert self.device.next_avail_idx == (self.start + self.seen) % 65536
        assert self.rings.views.avail[1]["word"] == (self.start + self.published) % 65536
        assert self.rings.views.used[1]["word"] == (self.start + self.returned) % 65536


def as_segments(listed: Buffers) -> Any:
    return segments(
        np.array([addr for addr, _ in listed], dtype=np.uint64), [length for _, length in listed]
    )


TestVirtqueue = Virtqueue.TestCase
TestVirtqueue.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
