"""The raw speed of discards: a bare loop of the system calls, in a process of its own.

As the host does: by a process that maps the guest's memory and touches none of it, while the one
that has touched it sits on another CPU and must be told of every page that goes.
"""

import ctypes
import socket
import time
from typing import Final

from emulator.errors import RunFailed
from emulator.launch.channel import Channel
from emulator.launch.child import Passed
from emulator.launch.children import child_main, ready_and_go
from emulator.machine import Handle, Machine

_PUNCH_HOLE_KEEP_SIZE: Final = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def bare_main(end: socket.socket, handle: Handle, ram: Passed) -> None:
    """Answer each message `ranges`, [[offset, length], ...] in bytes, with `elapsed_s`."""
    child_main("bare", end, handle, ram, ("vmm",), _serve)


async def _serve(machine: Machine, channel: Channel) -> None:
    if not await ready_and_go(channel):
        return
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    fd = machine.ram.fd
    while (message := await channel.receive()) is not None:
        began_s = time.perf_counter()
        for offset, length in message["ranges"]:
            if fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
                raise RunFailed("the system refused to punch a hole into the guest's memory")
        await channel.send(kind="discarded", elapsed_s=time.perf_counter() - began_s)
