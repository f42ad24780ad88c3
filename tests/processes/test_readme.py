"""What the README shows, run as it is shown."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.config.scenario import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["virtual", "processes"])
def test_the_mechanism_of_the_readme_runs(tmp_path: Path, launcher: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert code.count("\n") < 60
    (tmp_path / "mine.py").write_text(code)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "emulator", "scenario", "memhog", "--json"),
            *("--mechanism", f"{tmp_path / 'mine.py'}:Mine", "--memory", "512MiB"),
            *("--launcher", launcher, "--set", "workload.iterations=1"),
            *("--set", "workload.idle=2s", "--output", str(tmp_path / "run")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["mechanism"] == "mine"
    assert summary["oracle"]["violations"] == 0
    assert summary["hinting"]["reports"] > 50
    assert summary["hinting"]["returned_bytes"] > 300 << 20
    assert summary["host"]["resident_bytes_end"] < 100 << 20
