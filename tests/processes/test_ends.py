"""However a run is ended, it ends within seconds, in one clear line, and leaves nothing behind."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.support.programs import Ended, Program, program

pytestmark = pytest.mark.slow

SHORT = (
    *("--memory", "64M", "--set", "expect=[]", "--set", "run.sample=20ms", "--output", "run"),
    *("--set", 'workload={kind="memhog",iterations=1,idle="300ms",rate="512MiB/s"}'),
)
LONG = (*SHORT[:-2], "--set", 'workload={kind="churn",duration="60s"}')
STAGES = {
    "start": (LONG, "phase: loading"),
    "run": (LONG, "resident"),
    "report": (SHORT, "phase: writing the report"),
}
CTRL_C, SIGTERM = (130, "Interrupted."), (143, "Ended by SIGTERM.")
RECORDED = "What was recorded is in run"
FAILS_AT_WORK = """
from tests.support.liar import Liar, LiarCycle
class Cycle(LiarCycle):
    def step(self, now_s):
        raise LookupError("nothing to report")
class Mine(Liar):
    def start(self, mm, actor):
        return None if mm.kernel[0]["virtual"] else Cycle(self, mm)  # Not in the rehearsal.
"""


def assert_ended(ended: Ended, exit_code: int, *lines: str) -> None:
    assert ended.seconds < 5
    assert (ended.exit_code, ended.lines) == (exit_code, list(lines))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("number", "everyone", "code_and_line"),
    [
        (signal.SIGINT, True, CTRL_C),
        (signal.SIGINT, False, CTRL_C),
        (signal.SIGTERM, True, SIGTERM),
        (signal.SIGTERM, False, SIGTERM),
    ],
)
def test_a_signal_ends_it(
    tmp_path: Path,
    stage: str,
    number: signal.Signals,
    everyone: bool,
    code_and_line: tuple[int, str],
) -> None:
    arguments, sign = STAGES[stage]
    with program(tmp_path, "scenario", *arguments) as running:
        running.wait_for(sign)
        running.send(number, 0 if everyone else None)
        ended = running.wait_ended()
        assert_ended(ended, code_and_line[0], RECORDED, code_and_line[1])
        assert ended.stdout == ""
        running.assert_nothing_left()


@pytest.mark.parametrize("stage", STAGES)
def test_a_supervisor_that_is_killed_leaves_nothing(tmp_path: Path, stage: str) -> None:
    arguments, sign = STAGES[stage]
    with program(tmp_path, "scenario", *arguments) as running:
        running.wait_for(sign)
        running.send(signal.SIGKILL)
        assert_ended(running.wait_ended(), 137)
        running.assert_nothing_left(but_files=True)  # Nobody is there to remove a half-written one.


@pytest.mark.parametrize("stage", ["start", "run"])
def test_a_fork_server_that_is_killed_ends_the_run(tmp_path: Path, stage: str) -> None:
    arguments, sign = STAGES[stage]
    with program(tmp_path, "scenario", *arguments) as running:
        running.wait_for(sign)
        running.wait_until(lambda: has_fork_server(running))
        running.send(signal.SIGKILL, running.pid_of("multiprocessing.forkserver"))
        ended = running.wait_ended()
        assert ended.exit_code == 1 and ended.seconds < 5
        assert ended.lines[0] == RECORDED
        assert "fork server" in ended.lines[1] and len(ended.lines) == 2
        running.assert_nothing_left()


def has_fork_server(running: Program) -> bool:
    return any("multiprocessing.forkserver" in name for name in running.members().values())


@pytest.mark.parametrize(("comm", "name"), [("emu host", "host"), ("emu guest", "guest kernel")])
def test_a_part_that_is_killed_ends_the_run(tmp_path: Path, comm: str, name: str) -> None:
    with program(tmp_path, "scenario", *LONG) as running:
        running.wait_for("resident")
        running.send(signal.SIGKILL, running.pid_of(comm))
        line = f"Error: the {name} was killed by signal 9 (SIGKILL); the run was ended"
        assert_ended(running.wait_ended(), 1, RECORDED, line)
        running.assert_nothing_left()


def test_a_vcpu_that_is_killed_is_said_and_counted(tmp_path: Path) -> None:
    with program(tmp_path, "scenario", "--json", *SHORT) as running:
        running.wait_for("resident")
        running.send(signal.SIGKILL, running.pid_of("emu vcpu 1"))
        ended = running.wait_ended()
        assert ended.exit_code == 1
        summary = json.loads(ended.stdout)
        assert summary["vcpus"]["lost"] == 1
        assert summary["oracle"]["violations"] == 0
        log = (tmp_path / "run" / "log.jsonl").read_text()
        assert "vCPU 1 was killed by signal 9 (SIGKILL); the run goes on without it" in log
        running.assert_nothing_left()


def test_ctrl_c_while_kernels_are_compiled(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with program(tmp_path, "scenario", *LONG, EMULATOR_CACHE_DIR=str(cache)) as running:
        running.wait_for("compiling kernels")
        running.wait_until(lambda: list(cache.rglob("*.nbi")))
        running.send(signal.SIGINT, 0)
        assert_ended(running.wait_ended(), 130, RECORDED, "Interrupted.")
        running.assert_nothing_left()


def test_a_run_in_virtual_time_ends_by_ctrl_c(tmp_path: Path) -> None:
    with program(tmp_path, "scenario", *LONG, "--launcher", "virtual") as running:
        running.wait_for("resident")
        running.send(signal.SIGINT)
        assert_ended(running.wait_ended(), 130, RECORDED, "Interrupted.")
        running.assert_nothing_left()


def test_a_run_in_the_background_of_a_script_ends_by_sigterm(tmp_path: Path) -> None:
    """A shell without job control starts it with Ctrl-C ignored."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with program(tmp_path, "scenario", *LONG, preexec=ignore) as running:
        running.wait_for("resident")
        running.send(signal.SIGTERM)
        assert_ended(running.wait_ended(), 143, RECORDED, "Ended by SIGTERM.")
        running.assert_nothing_left()


def test_a_mechanism_that_fails_at_work_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILS_AT_WORK)
    own = {"EMULATOR_KERNELS": ""}
    with program(tmp_path, "scenario", *LONG, "--mechanism", "mine.py:Mine", **own) as running:
        ended = running.wait_ended()
        assert ended.exit_code == 2
        (line,) = ended.lines
        assert re.search(r"mine\.py, line \d+: .*LookupError: nothing to report", line)
        assert not (tmp_path / "run").exists()
        running.assert_nothing_left()


def test_a_mechanism_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('not today')\nclass Mine: pass\n")
    own = {"EMULATOR_KERNELS": ""}
    with program(tmp_path, "scenario", *LONG, "--mechanism", "mine.py:Mine", **own) as running:
        ended = running.wait_ended()
        assert ended.exit_code == 2
        reason = "mine.py, line 1: RuntimeError: not today; it cannot be imported"
        assert ended.lines[-1].endswith(reason)
        assert len(ended.lines) == 1
        assert not (tmp_path / "run").exists()
        running.assert_nothing_left()
