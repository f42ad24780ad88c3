"""Keeps a real guest: starts it, and lets nothing of it live on, however it or we end.

    python keeper_process.py LIFELINE SOCKET COMMAND ...

User-Mode Linux is several processes.  It ends them when it is asked to (SIGTERM), but some live on
when it is killed, or asked while it starts one.  So a process of its own watches over it: it runs
COMMAND as the leader of a session, and when that ends, or when nobody holds the other end of the
pipe LIFELINE any more (its owner has let go, or was killed), it ends the whole session, adopts and
buries what is left, removes SOCKET and the folder that holds nothing else, and exits as COMMAND
did.

Runs by itself, without the rest of the emulator: the standard library only.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_ADDR_NO_RANDOMIZE: Final = 0x0040000
_END_MS: Final = 1000  # What the guest may take to end itself.
_BURY_S_MAX: Final = 2.0
_libc: Final = ctypes.CDLL(None)


def main() -> int:
    """Run the command; its exit code."""
    lifeline, socket, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    inherited = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]  # noqa: PTH208
    passed = [fd for fd in inherited if fd != lifeline and _is_open(fd)]
    guest = subprocess.Popen(command, pass_fds=passed, start_new_session=True, preexec_fn=_prepare)
    for fd in (*range(3), *passed):  # The guest's alone, so that their other ends see it end.
        os.close(fd)
    ended = os.pidfd_open(guest.pid)
    _wait(lifeline, ended)
    if not _wait(ended, timeout_ms=0):
        guest.send_signal(signal.SIGTERM)
        _wait(ended, timeout_ms=_END_MS)
    # Before it is buried, while its number is nobody else's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
    code = guest.wait()
    _bury_orphans()
    with contextlib.suppress(OSError):  # Its owner has done it, unless it was killed.
        os.unlink(socket)  # noqa: PTH108
        os.rmdir(os.path.dirname(socket))  # noqa: PTH106, PTH120
    return code if code >= 0 else 128 - code


def _prepare() -> None:
    """In the guest, before it begins."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # Should the keeper be killed.
    # The same memory layout every time, where it is allowed: the kernel pads its memory by the gap
    # that is left random otherwise.
    _libc.personality(ctypes.c_ulong(_ADDR_NO_RANDOMIZE))


def _wait(*fds: int, timeout_ms: int | None = None) -> bool:
    """Whether one of them is readable, or its other end closed."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _bury_orphans() -> None:
    """Those of the session that came to us when their parent died; all have been killed."""
    until_s = time.monotonic() + _BURY_S_MAX
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until_s:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
