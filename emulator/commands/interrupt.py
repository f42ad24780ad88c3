"""SIGTERM and SIGHUP end a command as Ctrl-C does: in order, and with everything given back."""

import contextlib
import signal
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
