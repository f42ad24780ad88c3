"""A user's own mechanism that is wrong: file, line and reason, exit code 2, nothing left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.config.scenario import ROOT

(MINE,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
STEP = "        return Report(batch) if take(mm, me, batch) else Wait(until_s=None)\n"
DRAIN = "        put_back(mm, me, batch, reported)\n"
#: What is put in the place of what, and what is said of it.
WRONG = {
    "syntax": ("def take(", "def take((", "mine.py: not Python: "),
    "import": ("from typing", "import nowhere\nfrom typing", "line 4: ModuleNotFoundError: "),
    "name": ('    name = "mine"\n', "", 'class Mine lacks name = "..."'),
    "step": ("def step(", "def steps(", "class Mine lacks step(mm, actor, batch, now_s)"),
    "raises": (STEP, '        raise ValueError("no good")\n', "ValueError: no good"),
    "nothing": (STEP, "        pass\n", "step() returned None, which is neither Wait nor Report"),
    "drain": (DRAIN, "        1 / 0\n", "ZeroDivisionError: division by zero"),
    "hook": ("    if order == MAX_ORDER:", "    if nowhere == order:", "NameError: name 'nowhere'"),
}


def run_wrong(tmp_path: Path, source: str, *more: str, compiled: bool = False) -> tuple[int, str]:
    path = tmp_path / "mine.py"
    path.write_text(source)
    variables = {} if compiled else {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "emulator", "scenario", "memhog", "--launcher", "virtual"),
            *("--mechanism", f"{path}:Mine", "--memory", "16MiB", "--set", "guest.ram=accounted"),
            *("--set", "workload.idle=1s", "--set", "workload.iterations=1", *more),
        ],
        cwd=tmp_path,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, "".join(
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith("[")
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_it_is_one_line_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    old, new, message = WRONG[kind]
    assert old in MINE
    source = MINE.replace(old, new)
    code, said = run_wrong(tmp_path, source)
    assert (code, said.count("\n")) == (2, 1), said
    assert message in said
    if kind not in ("name", "step"):  # These the class as a whole lacks.
        (line,) = re.findall(r"line (\d+)", said)
        named = source.splitlines()[int(line) - 1].strip()
        wrong = "def step(" if kind == "nothing" else new.strip().splitlines()[0]
        assert named.startswith(wrong), said
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.slow
def test_blocks_that_are_never_put_back_are_missed_and_the_mechanism_named(tmp_path: Path) -> None:
    code, said = run_wrong(tmp_path, MINE.replace(DRAIN, "        pass\n"))
    assert code == 1
    found = re.search(r"not sound: the mechanism mine isolated (\d+) bytes and never put", said)
    assert found is not None, said
    assert int(found[1]) >= 4 << 20


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["virtual", "processes"])
def test_compiled_code_and_other_processes_do_not_hide_it(tmp_path: Path, launcher: str) -> None:
    in_a_hook = "    if order == MAX_ORDER:", "    if nowhere == order:"
    code, said = run_wrong(
        tmp_path, MINE.replace(*in_a_hook), "--launcher", launcher, compiled=True
    )
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{tmp_path / 'mine.py'}, line 16: NameError: name 'nowhere' is not defined" in said
    assert list(tmp_path.glob("runs/*")) == []
