"""A real guest as a process of ours: how it is started, heard, told what to do, and ended.

    async with run_guest(packages, memory_bytes=..., socket=path) as guest:
        await guest.wait_mark("start")
        await guest.command("fill 85")
        mark = await guest.wait_mark("full")

The guest's balloon is a vhost-user device at `socket`, which must be listening.  Nothing of a guest
is on disk: the initramfs is a memfd, its memory a file that it has removed itself.
"""

import math
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from emulator.errors import RunFailed
from emulator.uml.initramfs import initramfs_fd
from emulator.uml.packages import Packages
from emulator.uml.room import memory_folder

_KEEPER: Final = Path(__file__).with_name("keeper_process.py")
_MARK: Final = re.compile(rb"MARK (\d+\.\d+) (.*)")
_LINE_BYTES_MAX: Final = 1 << 16
_LINES_KEPT: Final = 40
_END_S_MAX: Final = 8.0  # The keeper needs at most half of it.


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the guest's: when we read it (trio's clock), its own uptime, and what it said."""

    at_s: float
    uptime_s: float
    words: tuple[str, ...]


class UmlGuest:
    """A guest that runs.  Made by `run_guest`."""

    def __init__(self, keeper: trio.Process, on_line: Callable[[str], None]) -> None:
        assert keeper.stdin is not None and keeper.stdout is not None
        self._keeper = keeper
        self._console_in, self._console_out = keeper.stdin, keeper.stdout
        self._on_line = on_line
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._marks, self._unread = trio.open_memory_channel[Mark](math.inf)
        self.marks: Final[list[Mark]] = []  # all, in order

    async def command(self, text: str) -> None:
        """Have it do something: a function of init.sh and its words."""
        try:
            await self._console_in.send_all(text.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._ended() from None

    async def wait_mark(self, name: str) -> Mark:
        """Its next mark of that name; others before it are passed over.

        Raises RunFailed if the guest ends instead.
        """
        async for mark in self._unread:
            if mark.words[0] == name:
                return mark
        raise self._ended()

    async def ask(self, text: str, name: str) -> Mark:
        """A command, and the mark that answers it."""
        await self.command(text)
        return await self.wait_mark(name)

    async def power_off(self) -> None:
        """Have it end by itself, and wait until it has."""
        await self.command("off")
        await self._keeper.wait()

    async def listen(self) -> None:
        """Read the console to its end."""
        rest = b""
        async with self._marks:
            while chunk := await self._receive():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(line.rstrip(b"\r"))
                if len(rest) > _LINE_BYTES_MAX:
                    raise RunFailed("the guest's console says a line without end")

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._console_out.receive_some())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self._said.append(text)
        self._on_line(text)
        if found := _MARK.fullmatch(line):
            words = tuple(found[2].decode(errors="replace").split())
            if words:
                mark = Mark(trio.current_time(), float(found[1]), words)
                self.marks.append(mark)
                self._marks.send_nowait(mark)

    def _ended(self) -> RunFailed:
        last = next((line for line in reversed(self._said) if line.strip()), "it said nothing")
        error = RunFailed(f"the guest has ended: {last.strip()}")
        error.add_note("The last that it said:\n" + "\n".join(self._said))
        return error


@asynccontextmanager
async def run_guest(
    packages: Packages,
    *,
    memory_bytes: int,
    socket: Path,
    parameters: tuple[str, ...] = (),
    on_line: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[UmlGuest]:
    """A guest with so much memory (a multiple of 1 MiB), whose balloon is behind `socket`.

    parameters:  further words for the kernel, such as page_reporting.page_reporting_order=9
    on_line:     is told every line of its console

    On the way out the guest has ended, and every process of it, and `socket` and its folder are
    gone, whatever became of us.  Raises MachineLacks if there is no room for its memory.
    """
    folder = memory_folder(memory_bytes)
    initramfs = initramfs_fd(packages)
    lifeline, ours = os.pipe()
    command = [
        sys.executable,
        "-IS",
        str(_KEEPER),
        str(lifeline),
        str(socket),
        str(packages.kernel),
        f"mem={memory_bytes >> 20}M",
        f"initrd=/proc/self/fd/{initramfs}",
        f"virtio_uml.device={socket}:5",
        "con=null",
        "con0=fd:0,fd:1",
        "uml_dir=/dev/null/",  # Nowhere: no console for managing it, nothing in the home folder.
        "loglevel=5",
        *parameters,
    ]
    try:
        keeper = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lifeline, initramfs),
            start_new_session=True,
            env={"TMPDIR": str(folder)},
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(lifeline)
        os.close(initramfs)
    guest = UmlGuest(keeper, on_line)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.listen)
            yield guest
            nursery.cancel_scope.cancel()
    finally:
        os.close(ours)
        await _wait_ended(keeper)


async def _wait_ended(keeper: trio.Process) -> None:
    """The keeper ends the guest as soon as we have let go of it."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(_END_S_MAX):
            await keeper.wait()
        if keeper.returncode is None:
            keeper.kill()
            await keeper.wait()
        for stream in (keeper.stdin, keeper.stdout):
            if stream is not None:
                await stream.aclose()
