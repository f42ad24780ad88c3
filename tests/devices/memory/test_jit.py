"""The compile cache: it follows every source, flag and version, and nothing else is compiled."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
import pytest
from numba.core import types

from devices.memory import jit
from emulator.config.scenario import ROOT
from tests.support.constant_kernels import chosen, sums

FOLDER = "from devices.memory.jit import CACHE_FOLDER; print(CACHE_FOLDER)"


def cache_folder(tmp_path: Path, **variables: str) -> Path:
    """Where a fresh process would keep compiled kernels."""
    environment = {**os.environ, "EMULATOR_CACHE_DIR": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", FOLDER], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_folder_is_the_same_for_the_same_sources(tmp_path: Path) -> None:
    first = cache_folder(tmp_path)
    assert first.parent == tmp_path
    assert first.is_dir()
    assert cache_folder(tmp_path) == first


def test_the_folder_follows_the_flags(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) != cache_folder(tmp_path, NUMBA_BOUNDSCHECK="1")


def test_the_folder_follows_a_users_own_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("a = 1\n")
    first = cache_folder(tmp_path, EMULATOR_KERNELS=str(own))
    own.write_text("a = 2\n")
    second = cache_folder(tmp_path, EMULATOR_KERNELS=str(own))
    assert len({first, second, cache_folder(tmp_path)}) == 3


def test_old_folders_are_dropped(tmp_path: Path) -> None:
    newest = jit.FOLDERS_KEPT_MAX + 3
    for number in range(newest + 1):
        folder = tmp_path / f"old{number}"
        folder.mkdir()
        os.utime(folder, (number, number))
    kept = cache_folder(tmp_path)
    folders = {path.name for path in tmp_path.iterdir()}
    assert kept.name in folders
    assert f"old{newest}" in folders
    assert "old0" not in folders
    assert len(folders) == jit.FOLDERS_KEPT_MAX


def test_without_a_place_to_keep_it_the_cache_is_temporary() -> None:
    folder = cache_folder(Path("/proc/nowhere"))
    assert not folder.exists()  # It went with the process that made it.


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("devices/virtio/kernels.py", True),
        ("emulator/guest/mm/buddy_kernels.py", True),
        ("emulator/guest/mm/layout.py", True),
        ("emulator/guest/hinting/mechanisms/page_reporting.py", True),
        ("devices/memory/atomics.py", True),
        ("emulator/guest/vcpu.py", False),
        ("emulator/commands/run.py", False),
    ],
)
def test_what_can_change_a_kernel_is_known_by_its_name(path: str, counts: bool) -> None:
    assert jit.is_kernel_source(ROOT / path) is counts


def test_constants_are_no_reason_to_compile_again() -> None:
    words = np.array([1, 10, 100, 1000])
    assert sums(words, 3) == 1 + 2 + 10 + 1000 + 200
    if not jit.interpreted():  # What is loaded has not been asked for yet.
        array, dispatcher = numba.typeof(words), cast(Any, chosen)
        for at, twice in (
            (types.IntegerLiteral(0), types.BooleanLiteral(True)),
            (types.int64, types.boolean),
        ):
            dispatcher.get_call_template((array, at, twice), {})
            dispatcher.get_call_template((array,), {"at": at, "twice": twice})
        assert len(dispatcher.signatures) == 1
