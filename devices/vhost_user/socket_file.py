"""The unix socket that guests attach to: its file, who may use it, and what it leaves behind.

The file is made with mode 0600, or 0666 if any user is to be served, in one step with the socket
(on Linux the mode of the unbound socket, less the umask, is that of its file), so that no one else
can connect in between.  A file that a dead
back-end left is replaced; one that somebody listens on is not, and neither is a file that is no
socket.  The end removes the file, if it is still ours.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final, NamedTuple, Self

_MODE: Final = 0o600
_MODE_FOR_ANY_USER: Final = 0o666
_BACKLOG: Final = 8
_PATH_BYTES_MAX: Final = 107  # sockaddr_un, less the terminating 0
_CREDENTIALS: Final = struct.Struct("3i")


class Peer(NamedTuple):
    """Who is at the other end (SO_PEERCRED): as it was when it connected."""

    pid: int
    uid: int


def peer_of(connected: socket.socket) -> Peer:
    """The process at the other end of a unix socket."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return Peer(pid, uid)


class SocketFile:
    """A listening socket at `path`; use it in a `with` statement.

    any_user:  let every user connect; who may enter the folder is not our concern

    Raises ValueError for a path that is too long, FileExistsError if somebody listens there or it
    is no socket, each with what to do, and OSError if the system refuses; only that names the path.
    """

    def __init__(self, path: str | os.PathLike[str], *, any_user: bool = False) -> None:
        self.path: Final = Path(path)
        if len(os.fsencode(self.path)) > _PATH_BYTES_MAX:
            raise ValueError(
                f"the socket's path has {len(os.fsencode(self.path))} bytes; at most "
                f"{_PATH_BYTES_MAX} would work"
            )
        self._closed = False
        _remove_stale(self.path)
        self.listening: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(self.listening, self.path, _MODE_FOR_ANY_USER if any_user else _MODE)
            found = self.path.lstat()
            self._identity = (found.st_dev, found.st_ino)
            self.listening.listen(_BACKLOG)
        except BaseException:
            self.listening.close()
            raise

    def close(self) -> None:
        """Remove the file, if it is still ours, and close the socket; once is enough.

        In this order: the open socket keeps its file's number from being given to a successor's.
        """
        if self._closed:
            return
        self._closed = True
        with self.listening, contextlib.suppress(FileNotFoundError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind(unbound: socket.socket, path: Path, mode: int) -> None:
    """Bind it to a file of exactly this mode, whatever the umask is."""
    os.fchmod(unbound.fileno(), mode)
    umask = os.umask(0o777 & ~mode)
    try:
        unbound.bind(os.fspath(path))
    finally:
        os.umask(umask)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody has bound any more; FileExistsError for anything else.

    Whoever listens must not hear of it: to serve one guest, it would take us for that.  A datagram
    socket cannot connect to a stream socket (EPROTOTYPE), but is refused if there is none.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError("it exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
    raise FileExistsError("another process listens there; end it, or name another path")
