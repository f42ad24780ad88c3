"""Who is a guest and who only looked in, and what becomes of those that come too late."""

import socket
from pathlib import Path

import pytest
import trio

from devices.vhost_user.reception_task import VISITORS_MAX
from devices.vhost_user.socket_file import SocketFile
from devices.vhost_user.transport import Attached, Detached, TurnedAway
from tests.devices.vhost_user.hosts import Host, host
from tests.devices.vhost_user.machines import Guest, no_leak
from tests.devices.vhost_user.talk import frame

__all__ = ["host"]


async def hung_up(stream: socket.socket) -> None:
    """Wait until the other side has hung up."""
    stream.setblocking(False)
    with trio.fail_after(10):
        assert await trio.socket.from_stdlib_socket(stream).recv(1) == b""


async def test_one_that_leaves_without_a_word_is_no_guest(host: Host) -> None:
    for _ in range(3):
        host.connect().close()
    guest = Guest(host.connect())
    await guest.attach()
    guest.close()
    await host.wait_for(Detached)
    assert (host.count(Attached), host.count(TurnedAway)) == (1, 0)


async def test_one_that_stays_without_a_word_keeps_nobody_out(host: Host) -> None:
    silent = host.connect()
    guest = Guest(host.connect())
    await guest.attach()
    guest.close()
    await host.wait_for(Detached)
    late = Guest(silent)  # It may still begin.
    await late.attach()
    late.close()
    await host.wait_for(Detached, 2)


async def test_of_too_many_that_say_nothing_the_oldest_has_to_go(host: Host) -> None:
    silent = [host.connect() for _ in range(VISITORS_MAX)]
    await trio.testing.wait_all_tasks_blocked(0.01)
    guest = Guest(host.connect())
    await guest.attach()
    await hung_up(silent[0])
    assert host.count(TurnedAway) == 1
    guest.close()
    await host.wait_for(Detached)
    for stream in silent:
        stream.close()


async def test_after_the_last_guest_has_come_nobody_waits(tmp_path: Path) -> None:
    host = Host(tmp_path / "socket")
    with no_leak(), trio.fail_after(20), SocketFile(host.path) as socket_file:
        async with trio.open_nursery() as nursery:
            serving = trio.CancelScope()

            async def serve() -> None:
                await host.server.serve(socket_file, guests_max=1)
                serving.cancel()

            nursery.start_soon(serve)
            host.connect().close()  # A health check does not count.
            silent = host.connect()
            await trio.testing.wait_all_tasks_blocked(0.01)
            guest = Guest(host.connect())
            await guest.attach()
            await hung_up(silent)
            silent.close()
            with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
                late.connect(str(host.path))
            with SocketFile(host.path):  # The place is free for a successor ...
                await guest.report(100)
                guest.close()
                await host.wait_for(Detached)
                with serving:
                    await trio.sleep_forever()
                socket_file.close()
                host.connect().close()  # ... whose file stays.
    assert [type(event) for event in host.events if not hasattr(event, "index")] == [
        Attached,
        Detached,
    ]


async def test_one_that_speaks_before_it_is_cancelled_is_closed(tmp_path: Path) -> None:
    host = Host(tmp_path / "socket")
    with no_leak(), SocketFile(host.path) as socket_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.server.serve, socket_file)
            guest = Guest(host.connect())
            await guest.attach()
            second = host.connect()
            second.sendall(frame(1))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        second.close()
        guest.close()
    assert host.count(Detached) == 1
