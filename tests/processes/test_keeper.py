"""Nothing of a guest outlives it, or its owner: with processes that do what a guest's do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from emulator.uml import keeper_process

pytestmark = pytest.mark.slow

# Writes the numbers of its processes: one that ignores SIGTERM, as what a guest leaves behind.
GUEST = """
trap '' TERM
sleep 1000 & echo $!
(trap '' TERM; sleep 1000) & echo $!
echo $$
"""


@contextmanager
def kept(
    script: str, socket: Path = Path("/none/socket")
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A keeper, and our end of its lifeline."""
    lifeline, ours = os.pipe()
    command = [sys.executable, "-IS", str(Path(keeper_process.__file__)), str(lifeline)]
    keeper = subprocess.Popen(
        [*command, str(socket), "sh", "-c", script],
        stdout=subprocess.PIPE,
        pass_fds=[lifeline],
        text=True,
    )
    os.close(lifeline)
    assert keeper.stdout is not None
    try:
        yield keeper, ours
    finally:
        with suppress(OSError):
            os.close(ours)
        keeper.wait(timeout=10)
        keeper.stdout.close()


def lives(pid: int) -> bool:
    """Whether it runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def numbers(keeper: "subprocess.Popen[str]", count: int) -> list[int]:
    assert keeper.stdout is not None
    return [int(keeper.stdout.readline()) for _ in range(count)]


def assert_gone(pids: list[int]) -> None:
    until_s = time.monotonic() + 10
    while any(lives(pid) for pid in pids) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert [pid for pid in pids if lives(pid)] == []


def test_all_end_when_the_owner_lets_go() -> None:
    with kept(GUEST + "wait") as (keeper, ours):
        pids = numbers(keeper, 3)
        assert all(map(lives, pids))
        os.close(ours)
        assert keeper.wait(timeout=10) == 128 + signal.SIGKILL
    assert_gone(pids)


def test_all_end_with_the_first_and_the_socket_goes(tmp_path: Path) -> None:
    socket = tmp_path / "folder" / "socket"
    socket.parent.mkdir()
    socket.touch()
    with kept(GUEST + "exit 7", socket) as (keeper, _):
        pids = numbers(keeper, 3)
        assert keeper.wait(timeout=10) == 7
    assert_gone(pids)
    assert list(tmp_path.iterdir()) == []


def test_the_guest_ends_when_its_keeper_is_killed() -> None:
    with kept("echo $$; exec sleep 1000") as (keeper, _):
        pids = numbers(keeper, 1)
        keeper.kill()
        keeper.wait(timeout=10)
    assert_gone(pids)
