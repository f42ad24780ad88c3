"""Whole commands, as a user starts them: how soon they work, how long they take, what they occupy.

The command runs in a session of its own, by which all its processes are found.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emulator.bench.series import Measurement
from emulator.config.scenario import ROOT
from emulator.errors import RunFailed
from emulator.observer import Observer
from emulator.run_folder import LOG, RunFolder

RUNNING: Final = "running"  # The phase that the log names when the workload is let go.
_LOOK_S: Final = 0.002
_MEMORY_LOOK_S: Final = 0.25
_LIMIT_S: Final = 180.0
_END_S_MAX: Final = 15.0
_WARM_REPEATS: Final = 3
_SHORT: Final = ("--set", "workload.fraction=0.01", "--set", "workload.idle=0s")
_ACCOUNTED: Final = ("--set", "guest.ram=accounted")
_LARGE: Final = (
    *("memhog", "--memory", "80GiB", *_ACCOUNTED),
    *("--set", f"workload.fraction={79 / 80}"),
    *("--set", "expect.0.at_most=80GiB"),  # Whether all came back is not the question here.
)


def measure_warm_start(names: Sequence[str], observer: Observer) -> Mapping[str, Measurement]:
    """`start.warm_s`, after one start that may compile."""
    values = [first_operation_s({}) for _ in range(_WARM_REPEATS + 1)]
    return {name: Measurement(tuple(values[1:])) for name in names}


def measure_cold_start(names: Sequence[str], observer: Observer) -> Mapping[str, Measurement]:
    """`start.cold_s`: once."""
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        value = first_operation_s({"EMULATOR_CACHE_DIR": cache})
    return {name: Measurement((value,)) for name in names}


def measure_memhog(names: Sequence[str], observer: Observer) -> Mapping[str, Measurement]:
    """`memory.memhog_80gib_s` and `memory.memhog_80gib_peak_bytes`: once."""
    peak_bytes = 0

    def look(session: int, folder: Path) -> None:
        nonlocal peak_bytes
        peak_bytes = max(peak_bytes, resident_bytes(session))

    _run((*_LARGE[:1], *_ACCOUNTED, *_SHORT), {}, look=_do_not_look, every_s=_LOOK_S)  # Compiles.
    elapsed_s = _run(_LARGE, {}, look=look, every_s=_MEMORY_LOOK_S)
    found = {
        "memory.memhog_80gib_s": Measurement((elapsed_s,)),
        "memory.memhog_80gib_peak_bytes": Measurement((float(peak_bytes),)),
    }
    return {name: found[name] for name in names}


def _do_not_look(session: int, folder: Path) -> None:
    pass


def first_operation_s(environment: Mapping[str, str]) -> float:
    """Seconds from starting `python -m emulator scenario` to its first page.

    Its log says when the workload was let go; how long after that the first phase began, its
    summary.  The run is a short one of the same scenario: how it begins does not depend on that.
    """
    let_go_s: float | None = None
    first_phase_s = 0.0
    began_s = time.monotonic()

    def look(session: int, folder: Path) -> None:
        nonlocal let_go_s
        if let_go_s is None and RUNNING in phases_of(folder):
            let_go_s = time.monotonic() - began_s

    def keep(folder: Path) -> None:
        nonlocal first_phase_s
        first_phase_s = RunFolder.open(folder).read_summary().phases[0].start_s

    _run(_SHORT, environment, look=look, every_s=_LOOK_S, keep=keep)
    if let_go_s is None:
        raise RunFailed(f"the log of the run does not say {RUNNING!r}")
    return let_go_s + first_phase_s


def phases_of(folder: Path) -> list[str]:
    """The phases that a run's log names so far."""
    try:
        lines = (folder / LOG).read_text("utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["text"] for entry in entries if entry["kind"] == "phase"]


def resident_bytes(session: int) -> int:
    """Memory of all processes of a session: each its own, and its share of what is shared (PSS)."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _session_of(entry) == session:
            try:
                lines = (entry / "smaps_rollup").read_text().splitlines()
            except OSError:  # It has just ended.
                continue
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _session_of(entry: Path) -> int | None:
    try:
        # The name, in brackets, may hold blanks; state, parent, group, session follow it.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None


def _run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    look: Callable[[int, Path], None],
    every_s: float,
    keep: Callable[[Path], None] = lambda _: None,
) -> float:
    """Run `python -m emulator scenario`; seconds until it has ended.

    `look(session, run folder)` is called every `every_s`, and `keep(run folder)` at the end.
    RunFailed: it did not end well, or not within the limit.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder, errors = Path(temporary) / "run", Path(temporary) / "errors"
        command = [sys.executable, "-m", "emulator", "scenario", *arguments]
        command += ["--output", str(folder)]
        began_s = time.monotonic()
        with errors.open("wb") as file, _started(command, environment, file.fileno()) as process:
            while process.poll() is None:
                if time.monotonic() - began_s > _LIMIT_S:
                    raise RunFailed(f"the run took more than {_LIMIT_S:.0f} s")
                look(process.pid, folder)
                time.sleep(every_s)
        elapsed_s = time.monotonic() - began_s
        if process.returncode != 0:
            said = errors.read_text("utf-8", "replace").splitlines() or ["nothing on stderr"]
            raise RunFailed(f"`emulator scenario` ended with {process.returncode}: {said[-1]}")
        keep(folder)
    return elapsed_s


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], stderr: int
) -> "Iterator[subprocess.Popen[bytes]]":
    """A command in a session of its own; on the way out it is over, however that comes about."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_END_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
