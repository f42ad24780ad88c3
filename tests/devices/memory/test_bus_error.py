"""Files that shrink under their mapping."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from devices.memory.bus_error import GUARDS_MAX, Guard
from devices.memory.mapping import map_foreign_file

SIZE = 5 * 4096


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("shrinks")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def test_a_touch_behind_the_end_finds_zeroes_and_says_so(file: int) -> None:
    memory, guard = map_foreign_file(file, SIZE - 100, 100)
    memory[:] = 7
    assert os.pread(file, 2, 99) == b"\0\7"
    os.ftruncate(file, 4096)
    assert memory[0] == 7 and not guard.lost  # That page is still there.
    assert memory[4096 * 3] == 0 and guard.lost
    assert (memory == 0).all()  # Lost as a whole, not half real.
    memory[:] = 9
    assert os.fstat(file).st_size == 4096 and os.pread(file, 2, 100) == b"\7\7"


def test_others_are_not_touched(file: int) -> None:
    with_memory, guard = map_foreign_file(file, SIZE)
    second = os.memfd_create("stays")
    os.ftruncate(second, SIZE)
    other, other_guard = map_foreign_file(second, SIZE)
    other[:] = 3
    os.ftruncate(file, 0)
    assert with_memory[0] == 0
    assert guard.lost and not other_guard.lost
    assert (other == 3).all()
    os.close(second)


def test_a_place_in_the_table_is_given_back(file: int) -> None:
    for _ in range(GUARDS_MAX + 10):
        map_foreign_file(file, SIZE)
    guards = []
    with pytest.raises(OSError, match=f"more than {GUARDS_MAX}"):
        while True:
            guards.append(Guard(0, 4096))
    for guard in guards:
        guard.release()
    map_foreign_file(file, SIZE)


@pytest.mark.parametrize("interpreted", ["0", "1"])
def test_a_bus_error_elsewhere_is_as_deadly_as_ever(interpreted: str) -> None:
    program = """
        import os
        from devices.memory.mapping import map_file, map_foreign_file
        fd = os.memfd_create("ours")
        os.ftruncate(fd, 8192)
        guarded, guard = map_foreign_file(fd, 8192)
        unguarded = map_file(fd, 8192)
        os.ftruncate(fd, 0)
        assert guarded[5] == 0 and guard.lost
        print("survived", flush=True)
        print(unguarded[5])
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=os.environ
        | {"NUMBA_DISABLE_JIT": interpreted, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert (ended.stdout, ended.returncode) == ("survived\n", -signal.SIGBUS)
