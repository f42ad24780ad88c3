"""What wakes the other half of a queue: a kick to the device, a call to the driver.

A notification carries no data and may be spurious; several may be seen as one.  None is lost: a
`notify` before or during `wait_notified` ends it.  So whoever waits has looked at the ring before,
and looks again after: disable notifications, drain, enable, look once more, wait.
"""

import contextlib
import os
from typing import Protocol

import trio


class Notifier(Protocol):
    """One direction of notifications."""

    def notify(self) -> None:
        """Wake the one that waits, or the next that will; never blocks."""

    async def wait_notified(self) -> None:
        """Return once there was a notification since the last return; always a checkpoint."""


class EventfdNotifier:
    """Notifications between processes, by an eventfd (eventfd(2)), or a pipe that stands in for it.

    fd:  an open descriptor, which becomes ours and is made non-blocking; None makes an eventfd.
         To reach another process, `fd` is passed on (a duplicate of it) by the caller.

    One task waits at a time; a second one gets trio.BusyResourceError.  After `close`, waiting
    raises trio.ClosedResourceError, also for a task that waits already; `notify` does nothing.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            os.set_blocking(fd, False)
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def notify(self) -> None:
        if self._fd < 0:
            return
        # A counter that is full has notifications enough that nobody has seen.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._fd, 1)

    async def wait_notified(self) -> None:
        while True:
            if self._fd < 0:
                raise trio.ClosedResourceError("the notifier is closed")
            await trio.lowlevel.wait_readable(self._fd)
            try:
                os.eventfd_read(self._fd)
            except BlockingIOError:  # Another process has seen it first.
                continue
            return

    def close(self) -> None:
        """Close the descriptor; once is enough."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)


class LocalNotifier:
    """Notifications between tasks of one trio run; the order of wake-ups follows trio's."""

    def __init__(self) -> None:
        self._notified = trio.Event()

    def notify(self) -> None:
        self._notified.set()

    async def wait_notified(self) -> None:
        notified = self._notified
        await notified.wait()
        if self._notified is notified:  # Else another waiter was first: keep what came since.
            self._notified = trio.Event()
