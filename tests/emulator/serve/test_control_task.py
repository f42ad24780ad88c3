"""Commands by a socket: each line is answered, a bad one with what would work."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from devices.vhost_user.socket_file import SocketFile
from emulator.serve.control_task import serve_control


@asynccontextmanager
async def caller(path: Path, targets: list[int | None]) -> AsyncIterator[trio.SocketStream]:
    def status() -> dict[str, Any]:
        return {"targets": len(targets)}

    with SocketFile(path) as socket_file, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: serve_control(socket_file, set_target=targets.append, status=status)
            )
            async with await trio.open_unix_socket(path) as stream:
                yield stream
            nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, line: bytes) -> Any:
    await stream.send_all(line + b"\n")
    return json.loads(await stream.receive_some())


async def test_targets_are_set_and_the_state_is_told(tmp_path: Path) -> None:
    targets: list[int | None] = []
    async with caller(tmp_path / "control", targets) as stream:
        assert await ask(stream, b"{}") == {"targets": 0}
        assert await ask(stream, b'{"target": "256MiB"}') == {"targets": 1}
        assert await ask(stream, b'{"target": null}') == {"targets": 2}
    assert targets == [256 << 20, None]


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[]",
        b"[" * 60_000,
        b'{"size": 1}',
        b'{"target": "much"}',
        b'{"target": []}',
        b"\xff",
    ],
)
async def test_a_bad_command_changes_nothing(tmp_path: Path, line: bytes) -> None:
    targets: list[int | None] = []
    async with caller(tmp_path / "control", targets) as stream:
        assert set(await ask(stream, line)) == {"error"}
        assert await ask(stream, b"{}") == {"targets": 0}


async def test_a_line_without_end_ends_the_conversation(tmp_path: Path) -> None:
    async with caller(tmp_path / "control", []) as stream:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b" " * (1 << 14))
