"""A front-end against a back-end over a real socket."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from devices.vhost_user.socket_file import SocketFile
from devices.vhost_user.transport import Attached, Detached, Event, QueueStarted, Server
from tests.devices.vhost_user.machines import REPORTING_INDEX, Guest, ServedBalloon, no_leak


class Host:
    """A server on a socket file, and what it told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.device = ServedBalloon()
        self.events: list[Event] = []
        self.server = Server(self.device, observe=self.events.append, message_s=0.3)

    def connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(str(self.path))
        return stream

    async def wait_for(self, kind: type, count: int = 1) -> None:
        with trio.fail_after(10):
            while sum(isinstance(event, kind) for event in self.events) < count:
                await trio.sleep(0.001)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "socket")
    with no_leak(), SocketFile(host.path) as socket_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.server.serve, socket_file)
            yield host
            nursery.cancel_scope.cancel()


async def test_a_guest_attaches_reports_and_leaves(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    guest.memory.ram[100 * 4096] = 7
    await guest.report(100, 200)
    assert guest.memory.ram[100 * 4096] == 0
    assert len(host.device.discarded) == 2
    guest.close()
    await host.wait_for(Detached)
    assert isinstance(host.events[0], Attached)
    assert QueueStarted(REPORTING_INDEX) in host.events
    left = host.events[-1]
    assert isinstance(left, Detached) and left.reason is None
