"""A server on a socket file, as tests use it."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from devices.vhost_user.socket_file import SocketFile
from devices.vhost_user.transport import Event, Server
from tests.devices.vhost_user.machines import ServedBalloon, no_leak


class Host:
    """A server, its device, and what it told."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.device = ServedBalloon()
        self.events: list[Event] = []
        self.server = Server(self.device, observe=self.events.append, message_s=0.3, **options)

    def connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(str(self.path))
        return stream

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def wait_for(self, kind: type, count: int = 1) -> None:
        with trio.fail_after(10):
            while self.count(kind) < count:
                await trio.sleep(0.001)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """One that serves; whatever happens, no descriptor is left in the end."""
    host = Host(tmp_path / "socket")
    with no_leak(), SocketFile(host.path) as socket_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.server.serve, socket_file)
            yield host
            nursery.cancel_scope.cancel()
    assert not host.path.exists()
