"""Where a real guest's memory can lie: a folder whose files can be executed from and punched."""

import ctypes
import os
import tempfile
from pathlib import Path
from typing import Final

from emulator.config.units import write_size
from emulator.errors import MachineLacks

_SHM: Final = "/dev/shm"
_PUNCH_HOLE_KEEP_SIZE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_PROBE_BYTES: Final = 1 << 20


def memory_folder(memory_bytes: int) -> Path:
    """The first folder that will do: TMPDIR, /dev/shm, or where temporary files lie otherwise.

    The guest maps its memory executable, so the file system must not be mounted noexec (containers'
    /dev/shm is); it must have the room, for a touch of what is not there would kill the guest; and
    a punched hole must give memory back.  Raises MachineLacks if none will do.
    """
    refused = []
    for name in filter(None, (os.environ.get("TMPDIR"), _SHM, tempfile.gettempdir())):
        why = _refusal(Path(name), memory_bytes)
        if why is None:
            return Path(name)
        refused.append(f"{name} {why}")
    raise MachineLacks(
        f"no place for a real guest's memory of {write_size(memory_bytes)}: {', '.join(refused)}; "
        f"set TMPDIR to a tmpfs that is large enough and not mounted noexec"
    )


def _refusal(folder: Path, memory_bytes: int) -> str | None:
    """Why a folder will not do; None if it will."""
    try:
        room = os.statvfs(folder)
        if room.f_flag & os.ST_NOEXEC:
            return "is mounted noexec"
        if room.f_bavail * room.f_frsize < memory_bytes:
            return f"has {room.f_bavail * room.f_frsize >> 20}MiB free"
        return None if _gives_back(folder) else "keeps what is punched out of its files"
    except OSError as error:
        return f"cannot be used ({error.strerror})"


def _gives_back(folder: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(b"\1" * _PROBE_BYTES)
        punched = libc.fallocate(file.fileno(), _PUNCH_HOLE_KEEP_SIZE, 0, _PROBE_BYTES) == 0
        return punched and os.fstat(file.fileno()).st_blocks == 0
