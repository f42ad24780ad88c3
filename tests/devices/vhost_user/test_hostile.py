"""Broken and hostile front-ends on a real socket: a clear end, and the next one can attach."""

import array
import contextlib
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from devices.memory.mapping import map_file
from devices.vhost_user.frontend import Frontend
from devices.vhost_user.socket_file import SocketFile
from devices.vhost_user.transport import Attached, Detached, QueueStopped, TurnedAway
from devices.virtio.notifier import EventfdNotifier
from tests.devices.vhost_user.hosts import Host, host
from tests.devices.vhost_user.machines import (
    FILE_OFFSET,
    GUEST_ADDR,
    RAM_BYTES,
    REPORTING_INDEX,
    Guest,
    no_leak,
)
from tests.devices.vhost_user.memories import second_memory
from tests.devices.vhost_user.talk import frame

__all__ = ["host"]
INDEX = REPORTING_INDEX


async def next_guest_attaches(host: Host) -> None:
    """The proof that nothing is left of the one before."""
    guest = Guest(host.connect())
    await guest.attach()
    await guest.report(100, 200)
    left = host.count(Detached)
    guest.close()
    await host.wait_for(Detached, left + 1)


async def left(host: Host) -> str | None:
    """Why the last one was left, as soon as it is."""
    await host.wait_for(Detached)
    (event,) = (event for event in host.events if isinstance(event, Detached))
    return event.reason


def send(stream: socket.socket, data: bytes, *fds: int) -> None:
    rights = array.array("i", fds).tobytes()
    stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else [])


TABLE = struct.pack("<II", 1, 0) + struct.pack("<QQQQ", 0, 4096, 0, 0)

BROKEN: list[tuple[str, Callable[[socket.socket, int], None], str]] = [
    ("no protocol at all", lambda s, fd: s.sendall(b"GET / HTTP/1.1\r\n\r\n"), "version|bytes of"),
    ("a wrong version", lambda s, fd: s.sendall(frame(1, flags=3)), "version 3"),
    ("a reply", lambda s, fd: s.sendall(frame(1, flags=5)), "is a reply"),
    ("a huge payload", lambda s, fd: s.sendall(frame(1, size=1 << 31)), "2147483648 bytes"),
    ("a payload too long", lambda s, fd: s.sendall(frame(3, b"x")), "1 bytes, not 0"),
    ("a payload too short", lambda s, fd: s.sendall(frame(2, b"1234")), "4 bytes, not 8"),
    ("a descriptor too many", lambda s, fd: send(s, frame(3), fd), "with 1 descriptors, not 0"),
    ("a descriptor too few", lambda s, fd: send(s, frame(5, TABLE)), "with 0 desc"),
    ("two for one region", lambda s, fd: send(s, frame(5, TABLE), fd, fd), "with 2 desc"),
    ("nine descriptors", lambda s, fd: send(s, frame(3), *[fd] * 9), "more than 8"),
    ("253 descriptors", lambda s, fd: send(s, frame(3), *[fd] * 253), "more than 8"),
    ("an unknown request", lambda s, fd: send(s, frame(77, b"12"), fd), "not supported"),
    ("too early", lambda s, fd: s.sendall(frame(2, bytes(8))), "before SET_OWNER"),
    ("a refused question", lambda s, fd: s.sendall(frame(17)), "MQ was not negotiated"),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[0])
async def test_ill_formed(
    host: Host, case: tuple[str, Callable[[socket.socket, int], None], str]
) -> None:
    _, misbehave, reason = case
    with no_leak():
        fd = os.eventfd(0)
        stream = host.connect()
        misbehave(stream, fd)
        found = await left(host)
        assert found is not None
        assert re.search(reason, found)
        with contextlib.suppress(ConnectionResetError):  # It did not read all there was.
            assert stream.recv(100) == b""
        stream.close()
        os.close(fd)
        await next_guest_attaches(host)


@pytest.mark.parametrize("count", [1, 11, 12, 15])
async def test_it_vanishes_in_the_middle_of_a_message(host: Host, count: int) -> None:
    fd = os.eventfd(0)
    stream = host.connect()
    send(stream, frame(2, bytes(8))[:count], fd)
    stream.close()
    assert await left(host) == "the peer left in the middle of a message"
    os.close(fd)
    await next_guest_attaches(host)


async def test_it_stops_in_the_middle_of_a_message(host: Host) -> None:
    stream = host.connect()
    stream.sendall(frame(2, bytes(8))[:13])
    assert await left(host) == "a message was not whole within 0.3 s"
    stream.close()
    await next_guest_attaches(host)


async def test_a_trickle_is_not_waited_for_either(host: Host) -> None:
    stream = host.connect()
    with pytest.raises(ConnectionError):
        for byte in frame(2, bytes(8)):
            stream.send(bytes([byte]))
            await trio.sleep(0.05)
    assert await left(host) == "a message was not whole within 0.3 s"
    stream.close()


async def test_it_does_not_read_its_replies(host: Host) -> None:
    stream = host.connect()
    stream.setblocking(False)
    with trio.move_on_after(20):
        while not host.count(Detached):
            try:
                stream.send(frame(1) * 64)
            except (BlockingIOError, ConnectionError):
                await trio.sleep(0.01)
    assert await left(host) == "the peer took no message within 0.3 s"
    stream.close()
    await next_guest_attaches(host)


async def test_it_vanishes_before_its_reply(host: Host) -> None:
    for i in range(20):
        stream = host.connect()
        stream.sendall(frame(1))
        stream.close()
        await host.wait_for(Detached, i + 1)
    await next_guest_attaches(host)


async def test_it_says_nothing_more(host: Host) -> None:
    stream = host.connect()
    stream.sendall(frame(1))
    await host.wait_for(Attached)
    await trio.sleep(0.6)  # Longer than a message may take: a guest may be silent for days.
    assert host.count(Detached) == 0
    stream.close()
    assert await left(host) is None


async def test_a_second_peer_is_turned_away_and_the_first_stays(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    second = host.connect()
    second.sendall(frame(1))
    await host.wait_for(TurnedAway)
    (event,) = (event for event in host.events if isinstance(event, TurnedAway))
    assert event.reason == "another guest is attached"
    with pytest.raises(ConnectionResetError):
        second.recv(10)
    await guest.report(100)
    guest.close()
    second.close()
    await host.wait_for(Detached)
    await next_guest_attaches(host)


async def test_one_that_comes_while_the_other_leaves_is_served(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    second = Guest(host.connect())
    guest.close()
    await second.attach()
    await second.report(50)
    second.close()
    await host.wait_for(Detached, 2)
    assert host.count(TurnedAway) == 0


@pytest.mark.parametrize("any_user", [False, True])
async def test_another_user_is_turned_away(tmp_path: Path, any_user: bool) -> None:
    host = Host(tmp_path / "socket", user=os.geteuid() + 1, any_user=any_user)
    with SocketFile(host.path) as socket_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.server.serve, socket_file)
            stream = host.connect()
            stream.sendall(frame(1))
            await host.wait_for(Attached if any_user else TurnedAway)
            (event,) = host.events
            if isinstance(event, TurnedAway):
                assert event.reason.endswith(f"not user {os.geteuid() + 1}, whom alone we serve")
                with pytest.raises(ConnectionResetError):
                    stream.recv(10)
            stream.close()
            nursery.cancel_scope.cancel()


async def test_it_leaves_while_it_is_served(host: Host) -> None:
    for _ in range(3):
        guest = Guest(host.connect())
        await guest.attach()
        guest.memory.lend(100)
        guest.kick.notify()
        guest.close()
    await host.wait_for(Detached, 3)
    assert host.device.served == []
    await next_guest_attaches(host)


async def test_it_leaves_during_a_discard(host: Host) -> None:
    host.device.hold = trio.Event()
    guest = Guest(host.connect())
    await guest.attach()
    guest.memory.lend(100)
    guest.kick.notify()
    await trio.sleep(0.05)
    guest.leave()
    await trio.sleep(0.05)
    assert host.count(Detached) == 0  # The memory is being worked on.
    host.device.hold.set()
    assert await left(host) is None
    guest.close()
    host.device.hold = None
    await next_guest_attaches(host)


async def test_a_file_that_shrinks_in_use_costs_its_guest_alone(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    await guest.report(100)
    os.ftruncate(guest.memory.fd, 0)
    guest.kick.notify()  # The guest's own ring is gone, too: nobody here may touch it.
    await host.wait_for(QueueStopped)
    (stopped,) = (event for event in host.events if isinstance(event, QueueStopped))
    assert stopped.reason is not None and "shrunk" in stopped.reason
    guest.close()
    await host.wait_for(Detached)
    await next_guest_attaches(host)


@pytest.mark.parametrize("idx", [100, 65535])
async def test_a_ring_that_jumps_is_dead_and_the_connection_lives(host: Host, idx: int) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    await guest.report(100)
    guest.memory.views.avail[1]["word"] = idx
    guest.kick.notify()
    await host.wait_for(QueueStopped)
    (stopped,) = (event for event in host.events if isinstance(event, QueueStopped))
    assert stopped.reason is not None and "more chains" in stopped.reason
    base = await guest.connection.hold(guest.frontend.stop_vring(INDEX))
    assert base == 1
    guest.memory.queue.initialize()  # The driver resets its device and is bound anew.
    await guest.connection.hold(guest.frontend.accept_features(guest.frontend.features))
    await guest.start()
    await guest.report(101)
    guest.close()
    await host.wait_for(Detached)


async def test_memory_that_gives_nothing_back(host: Host) -> None:
    """Say, a file on a file system that knows no holes."""
    host.device.error = OSError("no holes here")
    guest = Guest(host.connect())
    await guest.attach()
    guest.memory.lend(100)
    guest.kick.notify()
    await host.wait_for(QueueStopped)
    assert QueueStopped(INDEX, "no holes here") in host.events
    assert guest.memory.queue.pop_used() == []  # What was not discarded is not acknowledged.
    assert await guest.connection.hold(guest.frontend.count_queues()) == 5
    guest.close()
    await host.wait_for(Detached)
    host.device.error = None
    await next_guest_attaches(host)


async def test_nothing_outside_of_the_memory_is_touched(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    whole = map_file(guest.memory.fd, FILE_OFFSET + RAM_BYTES)
    whole[:FILE_OFFSET] = 7  # In the file, and not in the guest's memory.
    last = RAM_BYTES // 4096 - 1
    guest.memory.ram[last * 4096 :] = 7
    await guest.report(-1 % (1 << 52), last, last + 1)
    assert host.device.discarded == [(GUEST_ADDR + last * 4096, 4096)]
    assert (whole[:FILE_OFFSET] == 7).all()
    guest.close()
    await host.wait_for(Detached)


async def test_a_kick_that_never_ends_and_a_call_that_nobody_reads(host: Host) -> None:
    guest = Guest(host.connect())
    full = socket.socketpair()
    guest.call, call = EventfdNotifier(full[0].detach()), guest.call
    hold, frontend = guest.connection.hold, guest.frontend
    await hold(frontend.negotiate(features=1 << 5 | 1 << 32))
    await hold(frontend.set_memory([(guest.memory.range, guest.memory.fd)]))
    addresses = guest.memory.addresses()
    await hold(frontend.set_up_vring(addresses, size=64, kick=guest.kick.fd, call=full[1].fileno()))
    for i in range(2000):  # More calls than the socket holds.
        guest.memory.lend(i % 500 + 30)
        guest.kick.notify()
        with trio.fail_after(10):
            while not guest.memory.queue.pop_used():
                await trio.sleep(0)
    os.set_blocking(guest.kick.fd, True)  # Of the file, and thus for the back-end, too.
    os.eventfd_write(guest.kick.fd, 1)
    await hold(frontend.count_queues())
    full[1].close()
    call.close()
    guest.close()
    await host.wait_for(Detached)


async def test_a_guest_restarts_on_the_same_connection(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    for i in range(3):
        await guest.report(100 + i)
        assert await guest.connection.hold(guest.frontend.stop_vring(INDEX)) == i + 1
        await guest.start(base=i + 1)
    await guest.connection.hold(guest.frontend.reset_device())
    await guest.connection.hold(guest.frontend.accept_features(guest.frontend.features))
    guest.close()
    await host.wait_for(Detached)


async def test_memory_comes_and_goes_while_it_is_served(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    frontend: Frontend = guest.frontend
    with second_memory() as second:
        for _ in range(3):
            await guest.connection.hold(frontend.add_memory(second.range, second.fd))
            await guest.report((second.range.guest_addr - GUEST_ADDR) // 4096)
            await guest.connection.hold(frontend.remove_memory(second.range))
            await guest.report((second.range.guest_addr - GUEST_ADDR) // 4096, 80)
    far = second.range.guest_addr
    assert host.device.discarded == [(far, 4096), (GUEST_ADDR + 80 * 4096, 4096)] * 3
    guest.close()
    await host.wait_for(Detached)
