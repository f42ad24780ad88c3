"""The real guest's root file system: an archive of a few files, made in memory.

The format is cpio's "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): a
header of 110 bytes in hexadecimal, the name with its zero byte, the contents; header and name
together, and the contents, are padded to a multiple of 4 bytes.  The last entry is TRAILER!!!.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulator.uml.packages import Packages

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_INIT: Final = Path(__file__).with_name("init.sh")
_PROGRAM: Final = stat.S_IFREG | 0o755
_FILE: Final = stat.S_IFREG | 0o644
_FOLDER: Final = stat.S_IFDIR | 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file or folder of the archive; `mode` as in stat(2)."""

    name: str
    mode: int
    content: bytes = b""


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of these entries, in this order: a folder comes before what lies in it."""
    parts = [_record(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _record(0, Entry(name=_TRAILER, mode=0))])


def guest_entries(packages: Packages) -> list[Entry]:
    """What the guest needs: busybox, the balloon's driver, and our /init."""
    return [
        Entry(name="dev", mode=_FOLDER),
        Entry(name="bin", mode=_FOLDER),
        Entry(name="bin/busybox", mode=_PROGRAM, content=packages.busybox.read_bytes()),
        Entry(name="virtio_balloon.ko", mode=_FILE, content=packages.balloon.read_bytes()),
        Entry(name="init", mode=_PROGRAM, content=_INIT.read_bytes()),
    ]


def initramfs_fd(packages: Packages) -> int:
    """A memfd that holds the archive: nothing of it is ever on disk.  The caller closes it."""
    content = archive(guest_entries(packages))
    fd = os.memfd_create("initramfs", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(content)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _record(number: int, entry: Entry) -> bytes:
    """One entry; `number` is its inode."""
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device and special device (major, minor), length
    # of the name, checksum (not used).
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
