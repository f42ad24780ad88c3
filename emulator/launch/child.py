"""A process of the run as the supervisor sees it: how it is started, heard and ended."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from typing import Any, Final, Self

import trio

from emulator.launch.channel import Channel
from emulator.launch.failure import ProcessDied, process_failed

_REAP_S_MAX: Final = 5.0


@dataclass(slots=True)
class Child:
    """A process, our end of its channel, and what it said when it was done."""

    name: str
    process: Any
    channel: Channel
    done: dict[str, Any] | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    @classmethod
    def start(
        cls, context: ForkServerContext, name: str, main: Callable[..., None], *arguments: Any
    ) -> Self:
        """Start `main(end, *arguments)`, where `end` is its end of the channel."""
        mine, its = socket.socketpair()
        process = context.Process(target=main, args=(its, *arguments), name=name, daemon=True)
        process.start()
        its.close()
        return cls(name, process, Channel(mine))

    async def receive(self) -> dict[str, Any] | None:
        """Its next message, None when it has ended; `process_failed` if it says so."""
        message = await self.channel.receive()
        if message is not None and message["kind"] == "failed":
            raise process_failed(self.name, message)
        return message

    async def wait_ready(self) -> None:
        """Until it is ready for the signal to go; ProcessDied if it has ended instead."""
        message = await self.receive()
        if message is None:
            raise ProcessDied(self.name, self.exitcode())
        assert message["kind"] == "ready", message

    def exitcode(self) -> int | None:
        """How it ended; waits a moment for the system to know."""
        self.process.join(_REAP_S_MAX)
        code: int | None = self.process.exitcode
        return code

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.process.is_alive():
            self.process.kill()


class Passed:
    """A descriptor on its way to a child: pickled while that child is started, no other time.

    Arrives as an object whose `detach()` is the descriptor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return (_arrived, (DupFd(self._fd),))

    def detach(self) -> int:
        """What the child calls; here it is ours still."""
        return self._fd


def _arrived(passed: Any) -> Any:
    return passed
