"""The control socket: a guest's balloon target is changed, and its state asked for, while it runs.

    {"target": "256MiB"}    leave the guest with so much memory, the rest goes into its balloon
    {"target": null}        all of it is the guest's
    {}                      only tell

Each line is answered by one: the state as it is then, or {"error": "..."}.  It is a socket and no
command on standard input because a service has none: it is closed, a pipe, or a terminal's that is
shared with the live view; and a socket takes commands from any number of callers.  Only the same
user is answered.
"""

import json
import os
from collections.abc import Callable
from typing import Any, Final

import trio

from devices.vhost_user.socket_file import SocketFile, peer_of
from emulator.config.units import size_bytes

_LINE_BYTES_MAX: Final = 1 << 16
_ANSWER_S_MAX: Final = 10.0


async def serve_control(
    socket_file: SocketFile,
    *,
    set_target: Callable[[int | None], None],
    status: Callable[[], dict[str, Any]],
) -> None:
    """Answer until cancelled."""
    listening = socket_file.listening.dup()  # The listener closes what it has.
    listening.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def answer(stream: trio.SocketStream) -> None:
        if peer_of(stream.socket).uid == os.geteuid():  # type: ignore[arg-type]
            await _answer(stream, set_target, status)
        await stream.aclose()

    async with trio.open_nursery() as callers:
        await trio.serve_listeners(answer, [listener], handler_nursery=callers)


async def _answer(
    stream: trio.SocketStream,
    set_target: Callable[[int | None], None],
    status: Callable[[], dict[str, Any]],
) -> None:
    rest = b""
    try:
        while chunk := await stream.receive_some():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(bytes.strip, lines):
                reply = json.dumps(_reply(line, set_target, status)).encode()
                with trio.fail_after(_ANSWER_S_MAX):
                    await stream.send_all(reply + b"\n")
            if len(rest) > _LINE_BYTES_MAX:
                return
    except (trio.BrokenResourceError, trio.TooSlowError):
        return


def _reply(
    line: bytes,
    set_target: Callable[[int | None], None],
    status: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    try:
        command = json.loads(line)
        if not isinstance(command, dict) or set(command) - {"target"}:
            raise ValueError('write {"target": "256MiB"}, {"target": null} or {}')
        if "target" in command:
            target = command["target"]
            set_target(None if target is None else size_bytes(target))
    except (ValueError, RecursionError) as error:  # The latter by brackets within brackets.
        return {"error": " ".join(str(error).split())}
    return status()
