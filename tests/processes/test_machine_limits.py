"""A machine that lacks something: one line with the remedy, exit code 3, nothing left behind."""

import ctypes
import os
import platform
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import program

pytestmark = pytest.mark.slow

SMALL: Final = (
    *("scenario", "--memory", "64M", "--output", "run", "--set", "expect=[]"),
    *("--set", 'workload={kind="memhog",iterations=1,idle="100ms"}'),
)


def refused(folder: Path, *arguments: str, preexec: Callable[[], None]) -> str:
    """The one line that it ends with."""
    with program(folder, *arguments, preexec=preexec) as running:
        ended = running.wait_ended()
        assert (ended.exit_code, ended.stdout, len(ended.lines)) == (3, "", 1), ended
        assert not (folder / "run").exists()
        running.assert_nothing_left()
        return ended.lines[0]


def test_too_few_descriptors(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    line = refused(tmp_path, *SMALL, preexec=limit)
    assert line == "Error: limit of open files: 64; needs 256: ulimit -n 1024"


MEMFD_CREATE: Final = {"x86_64": 319, "aarch64": 279}


class Filter(ctypes.Structure):
    """struct sock_fprog (linux/filter.h): a length and a pointer to 8-byte instructions."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def forbid(system_call: int) -> None:
    """As a container's seccomp filter would: the call fails with ENOSYS."""
    load_number, jump_if_equal, give = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000 | 38
    instructions = ((load_number, 0, 0, 0), (jump_if_equal, 0, 1, system_call), (give, 0, 0, fail))
    code = b"".join(
        part
        for operation, true, false, value in (*instructions, (give, 0, 0, allow))
        for part in (
            operation.to_bytes(2, "little"),
            bytes((true, false)),
            value.to_bytes(4, "little"),
        )
    )
    memory = ctypes.create_string_buffer(code)
    program_ = Filter(len(code) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    if libc.prctl(set_seccomp, mode_filter, ctypes.byref(program_)) != 0:
        raise OSError(ctypes.get_errno(), "no seccomp filters here")


def test_no_memfd(tmp_path: Path) -> None:
    line = refused(tmp_path, *SMALL, preexec=lambda: forbid(MEMFD_CREATE[platform.machine()]))
    assert line.startswith("Error: memfd_create: does not work: ")
    assert "needs Linux 3.17, not forbidden by a seccomp filter" in line


def can_mount() -> bool:
    """Whether a mount namespace of our own is allowed, as it is for root."""
    attempt = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/dev/shm"]
    try:
        return subprocess.run(attempt, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def shrink_shm(size: str) -> None:
    """A /dev/shm of our own of that size, as a container has."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, recursive_private = 0x00020000, 0x40000 | 0x4000
    done = libc.unshare(new_namespace) == 0
    done = done and libc.mount(b"none", b"/", None, recursive_private, None) == 0
    options = f"size={size}".encode()
    if not (done and libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, options) == 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace: run as root")
@pytest.mark.parametrize(
    ("size", "memory", "message"),
    [
        ("1m", "64M", "/dev/shm: 1MiB free of 1MiB; needs 32MiB free"),
        ("48m", "16G", "/dev/shm has 48 MiB free and the guest's state needs "),
    ],
)
def test_too_small_a_shm(tmp_path: Path, size: str, memory: str, message: str) -> None:
    arguments = (*SMALL, "--memory", memory, "--set", 'guest.ram="accounted"')
    line = refused(tmp_path, *arguments, preexec=lambda: shrink_shm(size))
    assert message in line and "mount -o remount,size=" in line
