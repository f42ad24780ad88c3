"""What wakes the two sides of a vring, by descriptors that a front-end sent.

A front-end sends an eventfd, or an end of a socket pair (User-Mode Linux calls the guest so, and
expects 8 bytes a call) or of a pipe.  Whatever else comes is refused: a regular file, say, can
never be waited for.  The descriptor's file is shared with a front-end that may do to it what it
likes.  So sockets are asked not to block with every call, and eventfds read so, whatever the
file's own flag says; a write to an eventfd has no such way, and relies on O_NONBLOCK and on looking
first, which a front-end that switches the one and wins the race of the other defeats.
"""

import contextlib
import errno
import os
import select
import socket
import stat
from pathlib import Path
from typing import Final

import trio

from devices.vhost_user.codec import encode
from devices.vhost_user.errors import Refused
from devices.vhost_user.layout import BackendRequest
from devices.vhost_user.messages import Message

_ONE: Final = (1).to_bytes(8, "little")
_READ_BYTES_MAX: Final = 4096
_EVENTFD: Final = "anon_inode:[eventfd]"


def _unix_socket(fd: int) -> socket.socket | None:
    """A socket object that owns `fd`, if it is a unix stream socket."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return None
    found = socket.socket(fileno=fd)
    if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
        return found
    found.detach()
    return None


class DescriptorNotifier:
    """Notifications by a descriptor that was received: it becomes ours, also if it is refused.

    A peer that is gone is no error: a notification for it is dropped, and none comes from it any
    more.  Raises Refused for a descriptor that cannot carry notifications.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._gone = False
        try:
            self._socket = _unix_socket(fd)
            if self._socket is None and not self._is_eventfd_or_pipe():
                raise Refused("the descriptor is no eventfd, unix stream socket or pipe")
            os.set_blocking(fd, False)
            self._room = select.poll()
            self._room.register(fd, select.POLLOUT)
        except OSError as error:  # It is a mere path (O_PATH), say.
            os.close(fd)
            raise Refused(f"the descriptor cannot be used: {error}") from None
        except Refused:
            os.close(fd)
            raise

    def notify(self) -> None:
        """Wake the other side; if that is not possible without waiting, then it was not asleep."""
        if self._fd < 0:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionError):
            if self._socket is not None:
                self._socket.send(_ONE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            elif self._writable():
                os.write(self._fd, _ONE)

    async def wait_notified(self) -> None:
        """Return once there was a notification since the last return; for ever, if none can come.

        trio.ClosedResourceError once closed.
        """
        while not self._gone:
            if self._fd < 0:
                raise trio.ClosedResourceError("the notifier is closed")
            await trio.lowlevel.wait_readable(self._fd)
            with contextlib.suppress(BlockingIOError):
                self._gone = not self._read()
                if not self._gone:
                    return
        await trio.sleep_forever()

    def close(self) -> None:
        """Close the descriptor; once is enough."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(RuntimeError):  # Outside of trio nobody can be waiting.
            trio.lowlevel.notify_closing(fd)
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(fd)

    def _is_eventfd_or_pipe(self) -> bool:
        if stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            return True
        return Path(f"/proc/self/fd/{self._fd}").readlink().name == _EVENTFD

    def _writable(self) -> bool:
        return any(events & select.POLLOUT for _, events in self._room.poll(0))

    def _read(self) -> bool:
        """Take what is there; whether the other side still exists."""
        if self._socket is not None:
            try:
                return bool(self._socket.recv(_READ_BYTES_MAX, socket.MSG_DONTWAIT))
            except ConnectionError:
                return False
        try:
            return bool(os.preadv(self._fd, [bytearray(_READ_BYTES_MAX)], -1, os.RWF_NOWAIT))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EBADF:  # The writing end of a pipe: it will never wake us.
                return False
            raise


class CallLine:
    """Calls to a driver, whose descriptor may change while the vring is served."""

    def __init__(self) -> None:
        self._notifier: DescriptorNotifier | None = None

    def connect(self, notifier: DescriptorNotifier | None) -> None:
        """Call by this one from now on; by none, if it is None."""
        if self._notifier is not None:
            self._notifier.close()
        self._notifier = notifier

    def notify(self) -> None:
        if self._notifier is not None:
            self._notifier.notify()

    async def wait_notified(self) -> None:
        """Never returns: nothing comes back on this line."""
        await trio.sleep_forever()


class BackendChannel:
    """The socket on which a back-end tells a front-end that its configuration has changed.

    The descriptor becomes ours, also if it is refused.  Raises Refused for anything but a unix
    stream socket.
    """

    def __init__(self, fd: int) -> None:
        try:
            found = _unix_socket(fd)
        except OSError as error:
            os.close(fd)
            raise Refused(f"the back-end's channel cannot be used: {error}") from None
        if found is None:
            os.close(fd)
            raise Refused("the back-end's channel is no unix stream socket")
        found.setblocking(False)
        self._socket = found

    def notify_config_changed(self) -> bool:
        """Say that the configuration has changed; False: the front-end is gone.

        A channel that is full holds messages that say the same already.
        """
        frame = encode(Message(BackendRequest.CONFIG_CHANGE))
        try:
            self._socket.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
