"""What the supervisor and a child say to each other: lines of JSON over a socket pair.

The end of the stream is a message, too: to a child, that the supervisor is gone and it must end;
to the supervisor, that the child is gone.
"""

import json
import socket
from typing import Any, Final

import trio

_LINE_BYTES_MAX: Final = 1 << 20


class Channel:
    """One end; messages are dicts."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
        self._rest = b""

    async def send(self, **message: Any) -> bool:
        """False: the other side is gone."""
        try:
            await self._stream.send_all(json.dumps(message).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None: the other side is gone."""
        while b"\n" not in self._rest:
            try:
                chunk = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not chunk or len(self._rest) > _LINE_BYTES_MAX:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def aclose(self) -> None:
        """Close this end."""
        await self._stream.aclose()
