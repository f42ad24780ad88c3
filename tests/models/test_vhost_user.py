"""Hypothesis drives a back-end with valid and mutated messages, beside a model of its vrings.

The model knows what a front-end may expect: which vrings are served, and from which index on.
"""

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.layout import ProtocolFeature, Request
from devices.vhost_user.messages import (
    REPLIED,
    Config,
    MemorySlot,
    VringDescriptor,
    VringState,
    Word,
)
from tests.devices.vhost_user.frames import Fuzzer
from tests.devices.vhost_user.machines import (
    FEATURES,
    QUEUE_SIZE,
    GuestMemory,
    close_forgotten,
    open_descriptors,
)
from tests.devices.vhost_user.talk import BIT_30, Talk

ALL = ProtocolFeature(sum(ProtocolFeature))
QUEUES = 5
indices = st.integers(0, QUEUES - 1)


@dataclass
class Ring:
    """What the model knows of a vring."""

    memory: GuestMemory
    size: bool = False
    addresses: bool = False
    kicked: bool = False
    enabled: bool = False

    @property
    def served(self) -> bool:
        return self.size and self.addresses and self.kicked and self.enabled


def setup_module() -> None:
    close_forgotten()


class BackendMachine(RuleBasedStateMachine):
    """A back-end with five vrings, each in memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before = open_descriptors()
        self.rings = [Ring(GuestMemory()) for _ in range(QUEUES)]
        for index, ring in enumerate(self.rings):
            described = ring.memory.range
            offset = index << 32
            ring.memory.range = type(described)(
                guest_addr=described.guest_addr + offset,
                size_bytes=described.size_bytes,
                user_addr=described.user_addr + offset,
                mmap_offset=described.mmap_offset,
            )
        self.talk = Talk()
        self.fuzzer = Fuzzer(0)

    @initialize()
    def negotiate(self) -> None:
        self.talk.negotiate(protocol=ALL)
        self.talk.set_memory(*(ring.memory for ring in self.rings))

    def ask(self, request: int, payload: Any, *fds: int) -> bool:
        """Whether it was accepted."""
        return not self.talk.refused(request, payload, *fds)

    @rule(index=indices, size=st.sampled_from([QUEUE_SIZE, QUEUE_SIZE, 0, 48, 65536]))
    def resize(self, index: int, size: int) -> None:
        ring = self.rings[index]
        accepted = self.ask(Request.SET_VRING_NUM, VringState(index, size))
        assert accepted == (size == QUEUE_SIZE and not ring.served)
        ring.size = ring.size or accepted

    @rule(index=indices, offset=st.sampled_from([0, 0, 8, 1 << 40]))
    def place(self, index: int, offset: int) -> None:
        ring = self.rings[index]
        at = ring.memory.range.user_addr + offset
        accepted = self.ask(Request.SET_VRING_ADDR, ring.memory.addresses(index, at=at))
        assert accepted == (offset == 0 and not ring.served)
        ring.addresses = ring.addresses or accepted

    @rule(index=indices, present=st.booleans())
    def kick(self, index: int, present: bool) -> None:
        fds = [self.fuzzer.kick] if present else []
        accepted = self.ask(Request.SET_VRING_KICK, VringDescriptor(index, present), *fds)
        assert accepted == present
        self.rings[index].kicked |= accepted

    @rule(index=indices, enabled=st.integers(0, 2))
    def enable(self, index: int, enabled: int) -> None:
        accepted = self.ask(Request.SET_VRING_ENABLE, VringState(index, enabled))
        assert accepted == (enabled < 2)
        if accepted:
            self.rings[index].enabled = bool(enabled)

    @rule(index=indices)
    def work(self, index: int) -> None:
        """The guest reports a page, and the device takes it, if the vring is served."""
        ring = self.rings[index]
        queue = self.talk.queues.get(index)
        if queue is None:
            return
        ring.memory.lend(40)
        chain = queue.pop()
        assert chain is not None and len(chain.writable) == 1
        queue.push_used(chain.head, 0)
        queue.publish()
        assert ring.memory.queue.pop_used() == [((40,), 0)]

    @rule(index=indices)
    def stop(self, index: int) -> None:
        ring = self.rings[index]
        used = int(ring.memory.views.used[1]["word"])
        base = self.talk.ask(Request.GET_VRING_BASE, VringState(index, 0))
        assert isinstance(base, VringState) and base.index == index
        assert base.num == used
        ring.kicked = False
        assert self.ask(Request.SET_VRING_BASE, base)

    @rule(index=indices)
    def take_memory_away(self, index: int) -> None:
        """Refused while a vring lies in it; else it comes back."""
        ring = self.rings[index]
        slot = MemorySlot(ring.memory.range)
        accepted = self.ask(Request.REM_MEM_REG, slot)
        assert accepted == (not ring.served)
        if accepted:
            assert self.ask(Request.ADD_MEM_REG, slot, ring.memory.fd)

    @rule()
    def set_the_same_memory(self) -> None:
        self.talk.set_memory(*(ring.memory for ring in self.rings))

    @rule()
    def reset_device(self) -> None:
        assert self.ask(Request.RESET_DEVICE, None)
        self.forget()
        assert self.ask(Request.SET_FEATURES, Word(FEATURES | BIT_30))

    @rule(offset=st.integers(0, 20), size=st.integers(0, 20))
    def read_config(self, offset: int, size: int) -> None:
        found = self.talk.ask(Request.GET_CONFIG, Config(offset=offset, data=bytes(size)))
        assert (found is None) == (offset + size > 16)

    @rule(seed=st.integers(0, 1 << 32))
    def go_wrong(self, seed: int) -> None:
        """Anything may come, and the back-end stays sound; then the next guest attaches."""
        self.fuzzer.random.seed(seed)
        for frame in self.fuzzer.sequence():
            whole = len(frame.data) >= 12
            size = int.from_bytes(frame.data[8:12], "little")
            if not whole or len(frame.data) != 12 + size:
                continue  # Where a frame ends is the decoder's: the fuzzer's, over a socket.
            try:
                replies = self.talk.send_raw(frame.data, *frame.descriptors)
            except ProtocolError:
                break
            assert len(replies) <= 1
            for reply in replies:
                assert reply.request in REPLIED or isinstance(reply.payload, Word)
                reply.close()
        self.talk.close()
        self.talk = Talk()
        self.forget()
        self.negotiate()

    def forget(self) -> None:
        for ring in self.rings:
            ring.size = ring.addresses = ring.kicked = ring.enabled = False
            ring.memory.queue.initialize()

    @invariant()
    def those_are_served_that_must_be(self) -> None:
        self.talk.backend.validate()
        assert sorted(self.talk.queues) == [i for i, r in enumerate(self.rings) if r.served]

    def teardown(self) -> None:
        self.talk.close()
        self.fuzzer.close()
        for ring in self.rings:
            ring.memory.close()
        assert open_descriptors() == self.before


TestBackend = BackendMachine.TestCase
TestBackend.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
