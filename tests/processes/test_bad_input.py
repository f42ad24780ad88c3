"""Input that only a run can refuse: one line, exit code 2, no run folder, nothing left behind."""

import gzip
from pathlib import Path
from socket import AF_UNIX, socket
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from emulator.commands.application import cli
from emulator.launch.fork_server import socket_has_room
from tests.support.programs import program

EVENT = (
    " cc1-77 [001] .....  12.345678: mm_page_alloc: page=0x{pfn:x} pfn=0x{pfn:x} order={order} "
    "migratetype=1 gfp_flags=GFP_KERNEL\n"
)
PERF = "cc1 77 [001] 12.345679: kmem:mm_page_free: page=0x1 pfn=0x{pfn:x} order=0\n"
TRACES = {
    "empty": (b"", "empty"),
    "binary": (bytes(range(256)) * 16, "not text"),
    "other": (b"once upon a time\n" * 3, "no readable"),
    "mixed": ((EVENT.format(pfn=1, order=0) + PERF.format(pfn=1)).encode(), "more than one format"),
    "beyond": (EVENT.format(pfn=1 << 60, order=0).encode(), "every page frame is "),
    "cut": (gzip.compress(EVENT.format(pfn=1, order=0).encode() * 99)[:12], "compressed data end"),
    "large": (
        "".join(EVENT.format(pfn=n << 10, order=10) for n in range(1, 1025)).encode(),
        "has up to 4096MiB in use at once, too much for a guest of 2048MiB; use --memory ",
    ),
}


@pytest.mark.parametrize("kind", TRACES)
def test_a_bad_trace_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = TRACES[kind]
    Path("trace").write_bytes(content)
    result = CliRunner().invoke(cli, ["replay", "trace"], prog_name="emulator")
    lines = [line for line in result.stderr.splitlines() if not line.startswith("[")]
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert lines[0].startswith("Error: ") and message in lines[0]
    assert {path.name for path in Path.cwd().rglob("*")} == {"trace", "runs"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "trace"], "every page frame is "),
        (["scenario", "page_fault1", "--memory", "64M"], "do not fit in 64MiB; use --memory"),
        (["scenario", "--set", "mechanism.order=11"], "order 11 is not one of 0 to 10"),
        (["scenario", "--output", "/proc/nowhere"], "/proc/nowhere: cannot be written: "),
    ],
)
def test_bad_input_ends_the_processes_that_load_already(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "trace").write_bytes(TRACES["beyond"][0])
    with program(tmp_path, *arguments, "--launcher", "processes") as running:
        ended = running.wait_ended()
        assert (ended.exit_code, ended.stdout, len(ended.lines)) == (2, "", 1), ended
        assert ended.lines[0].startswith("Error: ") and message in ended.lines[0]
        assert list(tmp_path.glob("runs/*")) == []
        running.assert_nothing_left()


@pytest.mark.slow
def test_a_long_name_of_the_temporary_folder_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    bad = ("scenario", "--set", "mechanism.order=11", "--launcher", "processes")
    with program(tmp_path, *bad, TMPDIR=str(folder)) as running:
        ended = running.wait_ended()
        assert (ended.exit_code, len(ended.lines)) == (2, 1), ended
        assert list(folder.iterdir()) == []
        running.assert_nothing_left()


def test_the_longest_name_that_a_socket_can_have() -> None:
    room = 107 - len("/pymp-12345678/listener-12345678")
    with TemporaryDirectory(dir="/tmp", prefix="") as parent:
        folder = Path(parent, "b" * (room - len(parent) - 1))
        (folder / "pymp-12345678").mkdir(parents=True)
        with socket(AF_UNIX) as listener:
            listener.bind(str(folder / "pymp-12345678" / "listener-12345678"))
        assert socket_has_room(str(folder))
        assert not socket_has_room(f"{folder}c")
