"""The back-end's state machine: what a well-behaved front-end sees."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from devices.vhost_user.backend import Backend
from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.layout import MEMORY_SLOTS_MAX, ProtocolFeature, Request
from devices.vhost_user.messages import (
    Config,
    MemorySlot,
    MemoryTable,
    VringDescriptor,
    VringState,
    Word,
)
from tests.devices.vhost_user.machines import (
    FEATURES,
    GUEST_ADDR,
    QUEUE_SIZE,
    RAM_BYTES,
    REPORTING_INDEX,
    USER_ADDR,
    GuestMemory,
    ServedBalloon,
    no_leak,
)
from tests.devices.vhost_user.memories import second_memory
from tests.devices.vhost_user.talk import BIT_30, Talk, frame

ALL = ProtocolFeature(sum(ProtocolFeature))
INDEX = REPORTING_INDEX


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory()
    yield memory
    memory.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    with no_leak():
        talk = Talk()
        yield talk
        talk.close()


@pytest.fixture
def served(talk: Talk, memory: GuestMemory) -> Talk:
    """A guest with everything negotiated and one queue that is served."""
    talk.negotiate(protocol=ALL)
    talk.set_memory(memory)
    talk.start(memory)
    assert list(talk.queues) == [INDEX]
    talk.effects.clear()
    return talk


def test_features(talk: Talk) -> None:
    assert talk.ask(Request.GET_FEATURES) == Word(FEATURES | BIT_30)
    assert talk.ask(Request.GET_PROTOCOL_FEATURES) == Word(int(ALL))
    talk.negotiate(features=1 << 32)
    assert talk.backend.features == 1 << 32 | BIT_30
    assert talk.refused(Request.SET_FEATURES, Word(1 << 34))  # A packed ring.
    assert talk.refused(Request.SET_PROTOCOL_FEATURES, Word(1 << 14))
    assert talk.backend.features == 1 << 32 | BIT_30
    assert talk.backend.protocol_features == ProtocolFeature.REPLY_ACK


def test_the_message_that_brings_acknowledgements_is_acknowledged(talk: Talk) -> None:
    assert talk.send(Request.SET_OWNER, need_reply=True) == []
    assert not talk.refused(Request.SET_PROTOCOL_FEATURES, Word(1 << 3))
    assert talk.send(Request.SET_OWNER) == []


def test_fewer_protocol_features_can_be_offered() -> None:
    talk = Talk(protocol_features=ProtocolFeature.CONFIG)
    assert talk.ask(Request.GET_PROTOCOL_FEATURES) == Word(1 << 9)
    with pytest.raises(ProtocolError, match="0x8 were not offered"):
        talk.send(Request.SET_PROTOCOL_FEATURES, Word(1 << 3))


@pytest.mark.parametrize("queues_max", [0, 257])
def test_a_device_of_impossible_size(queues_max: int) -> None:
    with pytest.raises(ValueError, match=f"{queues_max} queues"):
        Backend(ServedBalloon(queues_max=queues_max))


def test_counts(served: Talk) -> None:
    assert served.ask(Request.GET_QUEUE_NUM) == Word(5)
    assert served.ask(Request.GET_MAX_MEM_SLOTS) == Word(MEMORY_SLOTS_MAX)
    seen = served.backend.statistics()
    assert (seen.queues_served, seen.queues_broken, seen.memory_bytes) == (1, 0, RAM_BYTES)


def test_the_queue_works_on_the_guests_memory(served: Talk, memory: GuestMemory) -> None:
    assert served.device.accepted == FEATURES | BIT_30
    memory.lend(3, 9)
    queue = served.queues[INDEX]
    chain = queue.pop()
    assert chain is not None
    assert chain.writable["addr"].tolist() == [GUEST_ADDR + 3 * 4096, GUEST_ADDR + 9 * 4096]
    queue.push_used(chain.head, 0)
    queue.publish()
    assert memory.queue.pop_used() == [((3, 9), 0)]


# The order of Linux's User-Mode front-end, word for word: its messages, sizes and flags.


def test_user_mode_linux_from_boot_to_a_second_bind(memory: GuestMemory) -> None:
    with no_leak():
        talk = Talk()
        replies = talk.send_raw(frame(3)) + talk.send_raw(frame(1)) + talk.send_raw(frame(15))
        offered, protocol = (r.payload.value for r in replies)  # type: ignore[union-attr]
        assert offered & BIT_30
        protocol &= 1 << 3 | 1 << 5 | 1 << 9 | 1 << 14
        assert protocol == 1 << 3 | 1 << 5 | 1 << 9  # No notifications in band.

        def tell(request: int, payload: bytes = b"", *fds: int) -> None:
            (reply,) = talk.send_raw(frame(request, payload, flags=9), *fds)
            assert reply.payload == Word(0)

        tell(16, struct.pack("<Q", protocol))
        ours, theirs = socket.socketpair()
        tell(21, b"", theirs.fileno())
        # Reads the command id: from 0 to the end of the field, in one message.
        (reply,) = talk.send_raw(frame(24, struct.pack("<III", 0, 12, 0) + bytes(12)))
        assert reply.payload == Config(offset=0, data=bytes(12))
        tell(25, struct.pack("<III", 4, 4, 0) + b"\7\0\0\0")
        calls = [socket.socketpair() for _ in range(3)]
        for bound in range(2):
            self_features = struct.pack("<Q", offered)
            tell(2, self_features)
            table = struct.pack("<IIQQQQ", 1, 0, GUEST_ADDR, RAM_BYTES, USER_ADDR, 0x3000)
            tell(5, table + bytes(32), memory.fd)
            for index, (_, call) in enumerate(calls):
                tell(13, struct.pack("<Q", index), call.fileno())
                tell(8, struct.pack("<II", index, QUEUE_SIZE))
                tell(10, struct.pack("<II", index, 0))
                at = memory.addresses(index)
                addresses = (at.descriptors_addr, at.used_addr, at.avail_addr, (1 << 64) - 1)
                tell(9, struct.pack("<IIQQQQ", index, 0, *addresses))
            kicks = [os.eventfd(0) for _ in range(3)]
            for index, kick in enumerate(kicks):
                tell(12, struct.pack("<Q", index), kick)
                tell(18, struct.pack("<II", index, 1))
                os.close(kick)
            assert sorted(talk.queues) == [0, 1, 2]
            assert talk.device.accepted == offered
            for index in (2, 1, 0):
                tell(18, struct.pack("<II", index, 0))
            assert talk.queues == {}
            talk.send_raw(frame(1))
            assert talk.device.resets == 0, bound
        assert talk.device.config[4:8] == b"\7\0\0\0"
        assert talk.backend.notify_config_changed()
        assert ours.recv(100) == struct.pack("<III", 2, 1, 0)
        talk.close()
        assert talk.device.resets == 1
        for end in (ours, theirs, *(e for pair in calls for e in pair)):
            end.close()


def test_without_bit_30_vrings_are_enabled_always(talk: Talk, memory: GuestMemory) -> None:
    talk.negotiate()
    talk.send(Request.SET_FEATURES, Word(FEATURES))
    talk.set_memory(memory)
    assert talk.refused(Request.SET_VRING_ENABLE, VringState(INDEX, 1))
    talk.send(Request.SET_VRING_NUM, VringState(INDEX, QUEUE_SIZE))
    talk.send(Request.SET_VRING_ADDR, memory.addresses())
    kick = os.eventfd(0)
    talk.send(Request.SET_VRING_KICK, VringDescriptor(INDEX), kick)
    os.close(kick)
    assert list(talk.queues) == [INDEX]


def test_any_order_of_the_parts_of_a_vring(talk: Talk, memory: GuestMemory) -> None:
    talk.negotiate()
    talk.set_memory(memory)
    kick = os.eventfd(0)
    assert not talk.refused(Request.SET_VRING_KICK, VringDescriptor(INDEX), kick)
    assert not talk.refused(Request.SET_VRING_ENABLE, VringState(INDEX, 1))
    assert not talk.refused(Request.SET_VRING_ADDR, memory.addresses())
    assert not talk.queues
    assert not talk.refused(Request.SET_VRING_NUM, VringState(INDEX, QUEUE_SIZE))
    assert list(talk.queues) == [INDEX]
    os.close(kick)


def test_get_vring_base_stops_and_tells_where_to_go_on(served: Talk, memory: GuestMemory) -> None:
    for _ in range(3):
        memory.lend(1)
    queue = served.queues[INDEX]
    for _ in range(2):
        chain = queue.pop()
        assert chain is not None
        queue.push_used(chain.head, 0)
    queue.publish()
    held = queue.pop()
    assert held is not None
    assert served.ask(Request.GET_VRING_BASE, VringState(INDEX, 0)) == VringState(INDEX, 2)
    assert served.effects == [f"stop {INDEX}", "reply"]
    served.start(memory, base=2)  # The one that was held comes again.
    again = served.queues[INDEX].pop()
    assert again is not None and again.head == held.head


def test_a_stopped_vring_has_let_go_of_its_descriptors(served: Talk) -> None:
    kick, call = os.eventfd(0), os.eventfd(0)
    with no_leak():
        served.send(Request.SET_VRING_CALL, VringDescriptor(1), call)
        served.send(Request.SET_VRING_KICK, VringDescriptor(1), kick)
        served.send(Request.SET_VRING_ERR, VringDescriptor(1), call)
        served.send(Request.SET_VRING_CALL, VringDescriptor(1), kick)
        served.send(Request.SET_VRING_KICK, VringDescriptor(1), call)
        served.ask(Request.GET_VRING_BASE, VringState(1, 0))
    os.close(kick)
    os.close(call)


def test_a_disabled_vring_goes_on_where_it_was(served: Talk, memory: GuestMemory) -> None:
    memory.lend(1)
    chain = served.queues[INDEX].pop()
    assert chain is not None
    served.queues[INDEX].push_used(chain.head, 0)
    served.queues[INDEX].publish()
    served.send(Request.SET_VRING_ENABLE, VringState(INDEX, 0))
    assert served.queues == {}
    memory.lend(2)
    served.send(Request.SET_VRING_ENABLE, VringState(INDEX, 1))
    chain = served.queues[INDEX].pop()
    assert chain is not None
    assert chain.writable["addr"].tolist() == [GUEST_ADDR + 2 * 4096]


def test_the_call_may_change_while_the_vring_is_served(served: Talk) -> None:
    first, second = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
    line = served.backend.vrings[INDEX].call
    served.send(Request.SET_VRING_CALL, VringDescriptor(INDEX), first)
    line.notify()
    served.send(Request.SET_VRING_CALL, VringDescriptor(INDEX), second)
    line.notify()
    assert os.eventfd_read(first) == os.eventfd_read(second) == 1
    served.send(Request.SET_VRING_CALL, VringDescriptor(INDEX, False))
    line.notify()
    assert served.effects == []
    os.close(first)
    os.close(second)


def test_a_new_kick_pauses_the_vring(served: Talk) -> None:
    kick = os.eventfd(0)
    served.send(Request.SET_VRING_KICK, VringDescriptor(INDEX), kick)
    assert served.effects == [f"stop {INDEX}", f"start {INDEX}"]
    os.close(kick)


def test_a_new_memory_table_pauses_the_vrings(served: Talk, memory: GuestMemory) -> None:
    with no_leak():
        served.set_memory(memory)
    assert served.effects == [f"stop {INDEX}", f"start {INDEX}"]
    memory.lend(5)
    assert served.queues[INDEX].pop() is not None


def test_memory_slots(served: Talk, memory: GuestMemory) -> None:
    with second_memory() as second:
        before = served.backend.memory.mapped
        assert not served.refused(Request.ADD_MEM_REG, MemorySlot(second.range), second.fd)
        assert served.backend.memory.mapped[0] is before[0]
        assert served.device.memory is served.backend.memory.address_space
        assert len(served.device.memory.regions) == 2
        memory.lend(1)
        assert served.queues[INDEX].pop() is not None
        # A descriptor may come along, and is of no use; the offset may be left out.
        for fds in ((), (second.fd,)):
            assert not served.refused(Request.REM_MEM_REG, MemorySlot(second.range), *fds)
            assert served.refused(Request.REM_MEM_REG, MemorySlot(second.range))
            assert not served.refused(Request.ADD_MEM_REG, MemorySlot(second.range), second.fd)
        assert served.refused(Request.REM_MEM_REG, MemorySlot(memory.range))  # The ring's.
        assert list(served.queues) == [INDEX]


def test_memory_in_slots_only(talk: Talk, memory: GuestMemory) -> None:
    talk.negotiate(protocol=ALL)
    assert not talk.refused(Request.ADD_MEM_REG, MemorySlot(memory.range), memory.fd)
    talk.start(memory)
    assert list(talk.queues) == [INDEX]


def test_two_regions(talk: Talk, memory: GuestMemory) -> None:
    with second_memory() as second:
        talk.negotiate()
        talk.set_memory(second, memory)
        talk.start(memory)
        regions = talk.backend.memory.address_space.regions
        assert [region.guest_addr for region in regions] == sorted(
            (GUEST_ADDR, second.range.guest_addr)
        )
        talk.set_memory(memory)
        assert len(talk.backend.memory.address_space.regions) == 1


def test_configuration(served: Talk) -> None:
    read = Request.GET_CONFIG
    assert served.ask(read, Config(offset=8, data=bytes(8))) == Config(offset=8, data=bytes(8))
    assert served.ask(read, Config(offset=8, data=bytes(9))) is None
    assert served.ask(read, Config(offset=0xFFFFFFFF, data=bytes(256))) is None
    write = Request.SET_CONFIG
    assert not served.refused(write, Config(offset=4, data=b"abcd"))
    assert served.refused(write, Config(offset=0, data=b"abcd"))
    assert served.send(write, Config(offset=0, data=b"abcd")) == []  # The guest's fault: ignored.
    assert not served.refused(write, Config(offset=0, data=b"efgh", flags=1))  # A migration may.
    assert served.refused(write, Config(offset=4, data=b"abcd", flags=2))
    assert served.ask(read, Config(offset=0, data=bytes(8))) == Config(offset=0, data=b"efghabcd")


def test_reset_device(served: Talk, memory: GuestMemory) -> None:
    assert not served.refused(Request.RESET_DEVICE)
    assert (served.queues, served.device.resets, served.backend.features) == ({}, 1, None)
    assert served.backend.memory.mapped
    served.send(Request.SET_FEATURES, Word(FEATURES | BIT_30))
    memory.queue.initialize()
    served.start(memory)
    assert list(served.queues) == [INDEX]


def test_reset_owner_disables_the_vrings(served: Talk) -> None:
    assert not served.refused(Request.RESET_OWNER)
    assert served.queues == {} and served.backend.memory.mapped


def test_a_dead_queue_stays_dead_until_it_is_set_up_anew(served: Talk, memory: GuestMemory) -> None:
    error = os.eventfd(0, os.EFD_NONBLOCK)
    served.send(Request.SET_VRING_ERR, VringDescriptor(INDEX), error)
    served.queues.clear()
    served.backend.queue_died(INDEX, "its driver lied")
    assert os.eventfd_read(error) == 1
    assert served.backend.statistics().queues_broken == 1
    served.send(Request.SET_VRING_ENABLE, VringState(INDEX, 1))
    served.set_memory(memory)
    assert served.queues == {}
    served.ask(Request.GET_VRING_BASE, VringState(INDEX, 0))
    served.start(memory)
    assert list(served.queues) == [INDEX]
    os.close(error)


def test_an_empty_table(served: Talk) -> None:
    assert served.refused(Request.SET_MEM_TABLE, MemoryTable(()))
    assert list(served.queues) == [INDEX]
