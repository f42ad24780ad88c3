"""Requests that are well-formed and cannot be met: answered with 1, with nothing changed."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fcntl import F_ADD_SEALS, F_SEAL_WRITE, fcntl
from pathlib import Path
from typing import Any

import pytest

from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.layout import MEMORY_BYTES_MAX, MEMORY_SLOTS_MAX, ProtocolFeature, Request
from devices.vhost_user.messages import (
    Config,
    Inflight,
    MemoryRange,
    MemorySlot,
    MemoryTable,
    Payload,
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
    no_leak,
)
from tests.devices.vhost_user.talk import BIT_30, Talk

INDEX = REPORTING_INDEX
TOP = 1 << 64
ALL = ProtocolFeature(sum(ProtocolFeature))


class Machine:
    """A back-end with a guest that is served, and an idle vring 1."""

    def __init__(self) -> None:
        self.memory = GuestMemory()
        self.talk = Talk()
        self.talk.negotiate(protocol=ALL)
        self.talk.set_memory(self.memory)
        self.talk.start(self.memory)

    def state(self) -> tuple[Any, ...]:
        """All that a refusal must leave as it is."""
        backend = self.talk.backend
        vrings = [
            (v.size, v.base, v.addresses, v.enabled, v.kick, v.broken, v.queue)
            for v in backend.vrings
        ]
        return (
            vrings,
            backend.memory,
            backend.features,
            backend.protocol_features,
            backend.area,
            backend.channel,
            bytes(self.talk.device.config),
        )


@pytest.fixture
def machine() -> Iterator[Machine]:
    with no_leak():
        machine = Machine()
        yield machine
        machine.talk.close()
        machine.memory.close()


def table(**changes: int) -> Callable[[Machine], tuple[Payload, list[int]]]:
    """The guest's own region, changed."""
    return lambda m: (MemoryTable((replace(m.memory.range, **changes),)), [m.memory.fd])


def two(**changes: int) -> Callable[[Machine], tuple[Payload, list[int]]]:
    """The guest's own region and, far from it, another one, changed."""
    far = {"guest_addr": 1 << 40, "user_addr": 1 << 20} | changes
    return lambda m: (
        MemoryTable((m.memory.range, replace(m.memory.range, **far))),
        [m.memory.fd, m.memory.fd],
    )


def addresses(**changes: int) -> Callable[[Machine], tuple[Payload, list[int]]]:
    """Those of vring 1, which is of the same size, changed."""

    def made(machine: Machine) -> tuple[Payload, list[int]]:
        machine.talk.send(Request.SET_VRING_NUM, VringState(1, QUEUE_SIZE))
        return replace(machine.memory.addresses(1), **changes), []

    return made


def plain(payload: Payload) -> Callable[[Machine], tuple[Payload, list[int]]]:
    return lambda machine: (payload, [])


END = USER_ADDR + RAM_BYTES

CASES: list[tuple[str, Request, Callable[[Machine], tuple[Payload, list[int]]]]] = [
    # Memory.
    ("an empty region", Request.SET_MEM_TABLE, table(size_bytes=0)),
    ("guest address overflows", Request.SET_MEM_TABLE, table(guest_addr=TOP - RAM_BYTES + 1)),
    ("user address overflows", Request.SET_MEM_TABLE, table(user_addr=TOP - RAM_BYTES + 1)),
    ("offset overflows", Request.SET_MEM_TABLE, table(mmap_offset=TOP - 4096)),
    ("offset behind the file", Request.SET_MEM_TABLE, table(mmap_offset=1 << 62)),
    ("size overflows", Request.SET_MEM_TABLE, table(size_bytes=TOP - 1)),
    ("a file shorter than said", Request.SET_MEM_TABLE, table(size_bytes=RAM_BYTES + 1)),
    ("overlap for the guest", Request.SET_MEM_TABLE, two(guest_addr=GUEST_ADDR + 4096)),
    ("overlap for the front-end", Request.SET_MEM_TABLE, two(user_addr=USER_ADDR - 4096)),
    ("the same twice", Request.SET_MEM_TABLE, two(guest_addr=GUEST_ADDR, user_addr=USER_ADDR)),
    ("a served ring loses its place", Request.SET_MEM_TABLE, table(user_addr=1 << 30)),
    (
        "a slot that overlaps",
        Request.ADD_MEM_REG,
        lambda m: (MemorySlot(m.memory.range), [m.memory.fd]),
    ),
    (
        "a slot that is not there",
        Request.REM_MEM_REG,
        lambda m: (MemorySlot(replace(m.memory.range, user_addr=0)), []),
    ),
    # Vrings.
    ("a size of 0", Request.SET_VRING_NUM, plain(VringState(1, 0))),
    ("a size of no power of two", Request.SET_VRING_NUM, plain(VringState(1, 48))),
    ("a size of 65536", Request.SET_VRING_NUM, plain(VringState(1, 65536))),
    ("a size of 2^32 - 1", Request.SET_VRING_NUM, plain(VringState(1, 0xFFFFFFFF))),
    ("a base of 65536", Request.SET_VRING_BASE, plain(VringState(1, 65536))),
    ("a resize in use", Request.SET_VRING_NUM, plain(VringState(INDEX, QUEUE_SIZE))),
    ("a base in use", Request.SET_VRING_BASE, plain(VringState(INDEX, 0))),
    (
        "a move in use",
        Request.SET_VRING_ADDR,
        lambda m: (m.memory.addresses(at=USER_ADDR + 65536), []),
    ),
    ("set up twice, in use", Request.SET_VRING_ADDR, lambda m: (m.memory.addresses(), [])),
    ("enabled by 2", Request.SET_VRING_ENABLE, plain(VringState(1, 2))),
    ("descriptors in no region", Request.SET_VRING_ADDR, addresses(descriptors_addr=0)),
    ("used ring in no region", Request.SET_VRING_ADDR, addresses(used_addr=TOP - 4)),
    ("available ring behind the end", Request.SET_VRING_ADDR, addresses(avail_addr=END)),
    ("descriptors over the end", Request.SET_VRING_ADDR, addresses(descriptors_addr=END - 16)),
    ("available ring over the end", Request.SET_VRING_ADDR, addresses(avail_addr=END - 2)),
    ("used ring over the end", Request.SET_VRING_ADDR, addresses(used_addr=END - 4)),
    ("crooked descriptors", Request.SET_VRING_ADDR, addresses(descriptors_addr=USER_ADDR + 8)),
    ("crooked available ring", Request.SET_VRING_ADDR, addresses(avail_addr=USER_ADDR + 1)),
    ("crooked used ring", Request.SET_VRING_ADDR, addresses(used_addr=USER_ADDR + 2)),
    ("no kicks", Request.SET_VRING_KICK, plain(VringDescriptor(1, False))),
    ("a file as kick", Request.SET_VRING_KICK, lambda m: (VringDescriptor(1), [m.memory.fd])),
    ("a file as call", Request.SET_VRING_CALL, lambda m: (VringDescriptor(1), [m.memory.fd])),
    ("a file as error", Request.SET_VRING_ERR, lambda m: (VringDescriptor(1), [m.memory.fd])),
    # Features, configuration, the rest.
    ("features that are not offered", Request.SET_FEATURES, plain(Word(1 << 34))),
    ("features in use", Request.SET_FEATURES, plain(Word(1 << 32 | BIT_30))),
    ("unknown protocol features", Request.SET_PROTOCOL_FEATURES, plain(Word(1 << 14 | 8))),
    ("a read-only field", Request.SET_CONFIG, plain(Config(offset=0, data=b"abcd"))),
    ("outside of the fields", Request.SET_CONFIG, plain(Config(offset=1 << 31, data=b"abcd"))),
    ("unknown flags", Request.SET_CONFIG, plain(Config(offset=4, data=b"abcd", flags=2))),
    ("a file as channel", Request.SET_BACKEND_REQ_FD, lambda m: (None, [m.memory.fd])),
    (
        "an in-flight area in use",
        Request.SET_INFLIGHT_FD,
        lambda m: (Inflight(queues=1, queue_size=8, mmap_size=4096), [m.memory.fd]),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_it_is_refused_and_nothing_changes(machine: Machine, case: Any) -> None:
    _, request, prepared = case
    payload, descriptors = prepared(machine)
    before = machine.state()
    with no_leak():
        assert machine.talk.refused(request, payload, *descriptors)
    assert machine.state() == before
    machine.memory.lend(1)
    assert machine.talk.queues[INDEX].pop() is not None  # The guest that is served still is.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_without_acknowledgements_the_connection_ends(machine: Machine, case: Any) -> None:
    _, request, prepared = case
    payload, descriptors = prepared(machine)
    if request == Request.SET_CONFIG and payload.flags == 0:
        assert machine.talk.send(request, payload) == []  # A guest's fault, not its front-end's.
        return
    with no_leak(), pytest.raises(ProtocolError, match=f"^{request.name}: "):
        machine.talk.send(request, payload, *descriptors)


@pytest.mark.parametrize("index", [5, 255, 0xFFFFFFFF])
def test_vrings_that_are_not_there(machine: Machine, index: int) -> None:
    talk = machine.talk
    for request, num in (
        (Request.SET_VRING_NUM, 8),
        (Request.SET_VRING_BASE, 0),
        (Request.SET_VRING_ENABLE, 1),
    ):
        assert talk.refused(request, VringState(index, num))
    assert talk.refused(Request.SET_VRING_ADDR, machine.memory.addresses(index))
    with pytest.raises(ProtocolError, match=f"vring {index}, but there are 5"):
        talk.send(Request.GET_VRING_BASE, VringState(index, 0))
    if index < 256:
        kick = os.eventfd(0)
        for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
            assert talk.refused(request, VringDescriptor(index), kick)
        os.close(kick)


@contextmanager
def opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("what", ["directory", "pipe", "read-only", "sealed", "path", "eventfd"])
def test_what_is_no_memory(machine: Machine, what: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(8192))
    flags = {"directory": os.O_DIRECTORY, "path": os.O_PATH}.get(what, os.O_RDONLY)
    if what == "pipe":
        fd, other = os.pipe()
        os.close(other)
    elif what == "eventfd":
        fd = os.eventfd(0)
    elif what == "sealed":
        fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 8192)
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)
    else:
        fd = os.open(tmp_path if what == "directory" else file, flags)
    described = MemoryRange(guest_addr=0, size_bytes=4096, user_addr=0, mmap_offset=0)
    with opened(fd):
        assert machine.talk.refused(Request.ADD_MEM_REG, MemorySlot(described), fd)


def test_more_slots_than_there_are(machine: Machine) -> None:
    for i in range(1, MEMORY_SLOTS_MAX + 1):
        slot = MemorySlot(
            MemoryRange(guest_addr=i << 40, size_bytes=4096, user_addr=i << 20, mmap_offset=0)
        )
        refused = machine.talk.refused(Request.ADD_MEM_REG, slot, machine.memory.fd)
        assert refused == (i == MEMORY_SLOTS_MAX)


@pytest.mark.parametrize(
    ("queues", "queue_size"), [(0, 64), (6, 64), (65535, 64), (1, 0), (1, 3), (1, 65535)]
)
def test_in_flight_areas_that_cannot_be(machine: Machine, queues: int, queue_size: int) -> None:
    talk = machine.talk
    wanted = Inflight(queues=queues, queue_size=queue_size, mmap_size=1 << 20)
    with no_leak(), pytest.raises(ProtocolError, match="GET_INFLIGHT_FD"):
        talk.send(Request.GET_INFLIGHT_FD, wanted)
    talk.ask(Request.GET_VRING_BASE, VringState(INDEX, 0))
    assert talk.refused(Request.SET_INFLIGHT_FD, wanted, machine.memory.fd)


@pytest.mark.parametrize(
    "changes", [{"mmap_size": 100}, {"mmap_offset": 1 << 40}, {"mmap_offset": 8}]
)
def test_in_flight_areas_that_do_not_fit(machine: Machine, changes: dict[str, int]) -> None:
    machine.talk.ask(Request.GET_VRING_BASE, VringState(INDEX, 0))
    area = replace(Inflight(queues=5, queue_size=64, mmap_size=5 * 1088), **changes)
    assert machine.talk.refused(Request.SET_INFLIGHT_FD, area, machine.memory.fd)


def test_a_base_that_the_ring_cannot_have(machine: Machine) -> None:
    talk, index = machine.talk, INDEX
    talk.ask(Request.GET_VRING_BASE, VringState(index, 0))
    machine.memory.views.used[1]["word"] = 100
    assert not talk.refused(Request.SET_VRING_BASE, VringState(index, 3))
    kick = os.eventfd(0)
    with no_leak():
        assert talk.refused(Request.SET_VRING_KICK, VringDescriptor(index), kick)
    os.close(kick)
    assert talk.queues == {}


def test_the_wrong_state(machine: Machine) -> None:
    talk = Talk()
    talk.send(Request.SET_PROTOCOL_FEATURES, Word(int(ALL)))
    for request, payload, descriptors in (
        (Request.SET_FEATURES, Word(0), ()),
        (Request.SET_MEM_TABLE, MemoryTable((machine.memory.range,)), (machine.memory.fd,)),
        (Request.SET_VRING_NUM, VringState(0, 8), ()),
        (Request.SET_VRING_ADDR, machine.memory.addresses(), ()),
        (Request.RESET_DEVICE, None, ()),
    ):
        with no_leak():
            assert talk.refused(request, payload, *descriptors), request  # Before SET_OWNER.
    talk.send(Request.SET_OWNER)
    assert talk.refused(Request.SET_VRING_ADDR, machine.memory.addresses())  # Before the memory.
    assert talk.refused(Request.SET_VRING_ENABLE, VringState(0, 1))  # Before bit 30.
    talk.set_memory(machine.memory)
    kick = os.eventfd(0)
    talk.send(Request.SET_VRING_NUM, VringState(INDEX, QUEUE_SIZE))
    talk.send(Request.SET_VRING_ADDR, machine.memory.addresses())
    talk.send(Request.SET_VRING_KICK, VringDescriptor(INDEX), kick)
    os.close(kick)
    assert talk.queues == {}  # Before SET_FEATURES.
    talk.send(Request.SET_FEATURES, Word(FEATURES))
    assert list(talk.queues) == [INDEX]
    talk.close()


@pytest.mark.parametrize(
    ("request_", "payload", "count"),
    [
        (Request.GET_QUEUE_NUM, None, 0),
        (Request.SET_BACKEND_REQ_FD, None, 1),
        (Request.GET_CONFIG, Config(offset=0, data=b"1"), 0),
        (Request.SET_CONFIG, Config(offset=0, data=b"1"), 0),
        (Request.GET_INFLIGHT_FD, Inflight(queues=1, queue_size=8), 0),
        (Request.RESET_DEVICE, None, 0),
        (Request.GET_MAX_MEM_SLOTS, None, 0),
        (99, None, 2),
        (40, None, 0),
    ],
)
def test_what_was_not_negotiated(request_: int, payload: Payload, count: int) -> None:
    ours, theirs = socket.socketpair()
    with no_leak():
        talk = Talk()
        talk.negotiate(protocol=ProtocolFeature(0))
        with pytest.raises(ProtocolError, match=r"was not negotiated|not supported"):
            talk.send(request_, payload, *[theirs.fileno()] * count)
        talk.close()
    ours.close()
    theirs.close()


def test_an_unknown_request_is_refused_where_that_can_be_said(machine: Machine) -> None:
    assert machine.talk.backend.features == FEATURES | BIT_30
    with pytest.raises(ProtocolError, match="request 99: not supported"):
        machine.talk.send(99)


@pytest.mark.parametrize("request_", [Request.SET_MEM_TABLE, Request.ADD_MEM_REG])
def test_a_sparse_file_cannot_claim_any_amount_of_memory(
    machine: Machine, request_: Request
) -> None:
    own = machine.memory
    sparse = os.memfd_create("sparse")
    os.ftruncate(sparse, 60 << 40)
    far = MemoryRange(guest_addr=1 << 46, size_bytes=60 << 40, user_addr=1 << 62, mmap_offset=0)

    def asked(size_bytes: int) -> tuple[Payload, list[int]]:
        more = replace(far, size_bytes=size_bytes)
        if request_ == Request.ADD_MEM_REG:
            return MemorySlot(more), [sparse]
        return MemoryTable((own.range, more)), [own.fd, sparse]

    fits = MEMORY_BYTES_MAX - own.range.size_bytes
    for size_bytes in (60 << 40, fits + 4096):
        payload, descriptors = asked(size_bytes)
        with no_leak():
            assert machine.talk.refused(request_, payload, *descriptors)
        assert machine.talk.backend.statistics().memory_bytes == own.range.size_bytes
    payload, descriptors = asked(fits)
    assert not machine.talk.refused(request_, payload, *descriptors)
    assert machine.talk.backend.statistics().memory_bytes == MEMORY_BYTES_MAX
    os.close(sparse)
