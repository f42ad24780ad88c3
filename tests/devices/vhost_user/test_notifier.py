"""Kicks, calls and config changes by whatever descriptor a front-end sends."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from devices.vhost_user.errors import Refused
from devices.vhost_user.notifier import BackendChannel, CallLine, DescriptorNotifier
from tests.devices.vhost_user.machines import no_leak

Ends = tuple[int, int]


def eventfds() -> Ends:
    fd = os.eventfd(0)
    return fd, os.dup(fd)


def sockets() -> Ends:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


PAIRS: list[Callable[[], Ends]] = [eventfds, sockets, os.pipe]


@pytest.mark.parametrize("make", PAIRS, ids=["eventfd", "socket", "pipe"])
async def test_it_wakes_once_for_all_that_came_before(make: Callable[[], Ends]) -> None:
    with no_leak():
        waiting, waking = map(DescriptorNotifier, make())
        for _ in range(3):
            waking.notify()
        await waiting.wait_notified()
        with trio.move_on_after(0.02) as scope:
            await waiting.wait_notified()
        assert scope.cancelled_caught
        waking.notify()
        await waiting.wait_notified()
        waiting.close()
        waking.close()
        waking.close()
        waking.notify()


@pytest.mark.parametrize("make", PAIRS, ids=["eventfd", "socket", "pipe"])
def test_a_full_one_does_not_block(make: Callable[[], Ends]) -> None:
    reading, writing = make()
    notifier = DescriptorNotifier(writing)
    if make is eventfds:
        os.eventfd_write(reading, (1 << 64) - 2)
        os.set_blocking(reading, True)  # The peer undoes what we did.
    for _ in range(100_000 if make is os.pipe else 1000):
        notifier.notify()
    notifier.close()
    os.close(reading)


@pytest.mark.parametrize("make", PAIRS[1:], ids=["socket", "pipe"])
async def test_a_peer_that_is_gone(make: Callable[[], Ends]) -> None:
    waiting, waking = make()
    kick = DescriptorNotifier(waiting)
    os.close(waking)
    with trio.move_on_after(0.02) as scope:
        await kick.wait_notified()  # No end of the file wakes it again and again.
    assert scope.cancelled_caught
    kick.close()
    waiting, waking = make()
    call = DescriptorNotifier(waking)
    os.close(waiting)
    call.notify()
    call.close()


async def test_the_wrong_end_of_a_pipe_never_wakes() -> None:
    reading, writing = os.pipe()
    kick = DescriptorNotifier(writing)
    os.close(reading)
    with trio.move_on_after(0.02) as scope:
        await kick.wait_notified()
    assert scope.cancelled_caught
    kick.close()


async def test_a_blocking_eventfd_that_another_has_read_does_not_block() -> None:
    fd = os.eventfd(0)
    kick = DescriptorNotifier(os.dup(fd))
    os.set_blocking(fd, True)
    os.eventfd_write(fd, 1)
    await kick.wait_notified()
    with pytest.raises(BlockingIOError):
        kick._read()
    kick.close()
    os.close(fd)


async def test_closing_ends_a_wait() -> None:
    kick = DescriptorNotifier(os.eventfd(0))

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await kick.wait_notified()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        kick.close()


def fifo_path(folder: Path) -> int:
    os.mkfifo(folder / "fifo")
    return os.open(folder / "fifo", os.O_PATH)


REFUSED: list[Callable[[Path], int]] = [
    lambda folder: os.memfd_create("file"),
    lambda folder: os.open(folder, os.O_RDONLY),
    lambda folder: os.open("/dev/null", os.O_RDWR),
    lambda folder: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    lambda folder: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
    fifo_path,
]


@pytest.mark.parametrize("make", REFUSED)
def test_what_cannot_wake_anybody_is_refused_and_closed(
    make: Callable[[Path], int], tmp_path: Path
) -> None:
    with no_leak(), pytest.raises(Refused):
        DescriptorNotifier(make(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    with no_leak(), pytest.raises(Refused):
        BackendChannel(make(tmp_path))


def test_a_line_calls_whom_it_is_connected_to() -> None:
    with no_leak():
        line = CallLine()
        line.notify()
        fd = os.eventfd(0)
        line.connect(DescriptorNotifier(os.dup(fd)))
        line.notify()
        line.connect(None)
        line.notify()
        assert os.eventfd_read(fd) == 1
        os.close(fd)


def test_config_changes_to_one_who_does_not_read_and_to_one_who_left() -> None:
    ours, theirs = socket.socketpair()
    channel = BackendChannel(theirs.detach())
    assert all(channel.notify_config_changed() for _ in range(10_000))
    ours.close()
    assert not channel.notify_config_changed()
    channel.close()
