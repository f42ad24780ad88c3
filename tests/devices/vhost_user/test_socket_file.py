"""The socket's file: its mode, what was there before, and what is left."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devices.vhost_user.socket_file import SocketFile, peer_of
from tests.devices.vhost_user.machines import no_leak


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.mark.parametrize(("any_user", "mode"), [(False, 0o600), (True, 0o666)])
@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_only_its_user_may_connect_or_any(
    path: Path, umask: int, any_user: bool, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with no_leak(), SocketFile(path, any_user=any_user):
            assert stat.S_IMODE(path.lstat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert not path.exists()


def test_who_is_there(path: Path) -> None:
    with SocketFile(path) as file, socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(path))
        accepted, _ = file.listening.accept()
        assert peer_of(accepted) == (os.getpid(), os.getuid())
        accepted.close()


def test_a_dead_back_ends_file_is_replaced(path: Path) -> None:
    program = f"import os, socket; socket.socket(socket.AF_UNIX).bind({str(path)!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert path.is_socket()
    with SocketFile(path), socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(path))


def test_a_living_ones_is_not(path: Path) -> None:
    with no_leak(), SocketFile(path) as file:
        file.listening.setblocking(False)
        with pytest.raises(FileExistsError, match="another process listens"):
            SocketFile(path)
        with pytest.raises(BlockingIOError):  # Which has not heard of it.
            file.listening.accept()
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with no_leak(), pytest.raises(FileExistsError, match=r"^it exists and is no socket"):
        SocketFile(path)
    assert os.path.lexists(path)


def test_another_ones_file_is_not_removed(path: Path) -> None:
    file = SocketFile(path)
    path.unlink()
    path.write_text("another's")
    file.close()
    assert path.read_text() == "another's"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 107"):
        SocketFile(tmp_path / ("x" * 108))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with no_leak(), pytest.raises(FileNotFoundError):
        SocketFile(tmp_path / "none" / "socket")


def test_a_second_close_leaves_a_successors_file_alone(path: Path) -> None:
    file = SocketFile(path)
    file.close()
    for _ in range(8):  # One of them may well have the same number as the file that is gone.
        with SocketFile(path):
            file.close()
            assert path.is_socket()
