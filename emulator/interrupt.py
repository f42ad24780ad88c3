"""Ctrl-C, and SIGTERM and SIGHUP as if they were it: all end a command in order.

Whoever must not be interrupted half way says so (`deferred_interrupt`).
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

_ALIKE: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_interrupts() -> Iterator[list[signal.Signals]]:
    """In here these signals raise KeyboardInterrupt where Ctrl-C would; the list says which came.

    Python's own handler stands for Ctrl-C, as trio requires, also where a shell that started us in
    the background had it ignored.  A signal that is ignored by wish (nohup) stays ignored.
    """
    received: list[signal.Signals] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ALIKE)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ALIKE:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """What is done in here is done to its end; an interrupt comes afterwards.

    By the handler, and not by a mask: a thread of some library may take the signal for us.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread is ever interrupted.
        return
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def blocked_interrupt() -> Iterator[None]:
    """Processes that are started in here never see any of these: their supervisor ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, *_ALIKE])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
