"""`python -m emulator` as a user starts it, in a session of its own, and what it leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulator.config.scenario import ROOT
from emulator.machine_check import check_machine
from tests.support.real_runs import orphaned_segments, state_of

_WAIT_S_MAX: Final = 120.0  # A cold cache on a busy machine.


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit code as a shell reports it, seconds since it was asked to end."""

    exit_code: int
    stdout: str
    lines: list[str]  # of stderr, but for samples and phases
    seconds: float


class Program:
    """A program that runs; its files lie in `folder`."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        preexec: Callable[[], None] | None = None,
        **environment: str,
    ) -> None:
        self.folder = folder
        self.temporary = Path(tempfile.mkdtemp())  # Short, for the names of sockets in it.
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "emulator", *arguments],
                cwd=folder,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=preexec,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)}
                | environment,
            )
        self._asked_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the supervisor, and of the session."""
        return self._process.pid

    def members(self) -> dict[int, str]:
        """The living processes of its session: pid -> command line, or the name of a child."""
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and state_of(int(path.name)) not in "XZ":
                try:
                    if os.getsid(int(path.name)) == self.pid:
                        name = (path / "comm").read_text().strip()
                        command = (path / "cmdline").read_text().replace("\0", " ")
                        found[int(path.name)] = name if name.startswith("emu ") else command
                except OSError:
                    continue
        return found

    def pid_of(self, what: str) -> int:
        """Of the process whose name or command line holds `what`."""
        pids = [pid for pid, name in self.members().items() if what in name]
        assert len(pids) == 1, (what, self.members())
        return pids[0]

    def wait_for(self, text: str) -> None:
        """Until it has said so on stderr."""
        ends_s = time.monotonic() + _WAIT_S_MAX
        while text not in self._stderr.read_text():
            assert self._process.poll() is None, self._stderr.read_text()
            assert time.monotonic() < ends_s, self._stderr.read_text()
            time.sleep(0.002)

    def wait_until(self, true: Callable[[], object]) -> None:
        """Until something holds."""
        ends_s = time.monotonic() + _WAIT_S_MAX
        while not true():
            assert self._process.poll() is None, self._stderr.read_text()
            assert time.monotonic() < ends_s
            time.sleep(0.002)

    def send(self, number: signal.Signals, pid: int | None = None) -> None:
        """Send a signal to the supervisor, or to another process, or (pid 0) to all of them."""
        self._asked_s = time.monotonic()
        if pid == 0:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid if pid is None else pid, number)

    def wait_ended(self) -> Ended:
        """Until it and all of its processes have ended."""
        code = self._process.wait(_WAIT_S_MAX)
        while self.members():
            assert time.monotonic() < self._asked_s + _WAIT_S_MAX, self.members()
            time.sleep(0.002)
        shown = self._stderr.read_text().splitlines()
        return Ended(
            exit_code=code if code >= 0 else 128 - code,
            stdout=self._stdout.read_text(),
            lines=[line for line in shown if not line.startswith("[")],
            seconds=time.monotonic() - self._asked_s,
        )

    def assert_nothing_left(self, *, but_files: bool = False) -> None:
        """No process, no segment, no temporary file; `but_files`: in its run folder, perhaps."""
        assert self.members() == {}
        assert orphaned_segments() == set()
        assert list(self.temporary.iterdir()) == []
        # A file is written under another name at first.
        assert but_files or list(self.folder.rglob(".*")) == []


@contextmanager
def program(folder: Path, *arguments: str, **options: object) -> Iterator[Program]:
    """A program that a failing test ends, too."""
    running = Program(folder, *arguments, **options)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        for pid in running.members():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(running.temporary, ignore_errors=True)


def collapses() -> bool:
    """Whether this kernel makes huge pages of shared memory when it is asked to (Linux 6.1)."""
    return any(check.what == "MADV_COLLAPSE" and check.enough for check in check_machine())
