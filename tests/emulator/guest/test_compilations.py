"""The allocator's tests once more: with bounds checks, and with kernels interpreted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devices.memory.jit import interpreted

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    "tests/emulator/guest/mm",
    "tests/emulator/guest/hinting/mechanisms/test_page_reporting.py",
    "tests/emulator/guest/hinting/mechanisms/test_page_reporting_limits.py",
    "tests/emulator/guest/test_histogram.py",
    "tests/emulator/guest/test_ram_kernels.py",
    "tests/emulator/guest/test_recovery_task.py",
    "tests/emulator/guest/test_page_cache_recovery.py",
    "tests/models/test_page_cache.py",
    "tests/models/test_zone.py",
]


@pytest.mark.slow
@pytest.mark.skipif(interpreted(), reason="compiles by itself")
@pytest.mark.parametrize("variable", ["NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT"])
def test_the_same_results(variable: str) -> None:
    options = ["-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *FILES],
        cwd=ROOT,
        env={**os.environ, variable: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert ("skipped" in done.stdout) == (variable == "NUMBA_BOUNDSCHECK")
