"""What the fork server does before it forks: it follows its supervisor, loads, and says so.

It ends as soon as its supervisor is gone, however that came about: by itself it would look for that
only when it has loaded, which may take half a minute.  Its children follow it (`children`), and
nobody else would then remove the folder with its socket.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Final

from emulator.launch.failure import describe
from emulator.launch.fork_server import FIFO, FOLDER_VARIABLE

_PR_SET_PDEATHSIG: Final = 1
SUPERVISOR_GONE: Final = signal.SIGUSR1


def _remove_folder() -> None:
    shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)


def _end(number: int = 0, frame: FrameType | None = None) -> None:
    _remove_folder()
    os._exit(0)


def _follow_supervisor() -> int:
    """The FIFO's end, which the supervisor sees closed when we have loaded, or died."""
    atexit.register(_remove_folder)  # It may see the end of the supervisor's pipe first.
    signal.signal(SUPERVISOR_GONE, _end)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, SUPERVISOR_GONE)
    try:
        fifo = Path(os.environ[FOLDER_VARIABLE]) / FIFO
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # Nobody reads: the supervisor was gone before it could be followed.
        _end()
        raise


def _load() -> None:
    loading_fd = _follow_supervisor()
    try:
        import emulator.launch.preload  # noqa: F401
    except Exception as error:
        os.write(loading_fd, json.dumps(describe(error)).encode()[: 1 << 16])
    finally:
        os.close(loading_fd)


if FOLDER_VARIABLE in os.environ:
    _load()
