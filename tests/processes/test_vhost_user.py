"""vhost-user between real processes: the emulated guest's transport, and the command."""

import csv
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from devices.balloon.layout import F_PAGE_REPORTING
from devices.memory.ram import GuestRam
from devices.virtio.chain import segments
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from devices.virtio.queue_layout import QueueLayout
from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError, RunFailed
from emulator.guest.vhost_user_task import vhost_user_reporter
from emulator.machine import Machine
from tests.support.real_runs import real, run_real

pytestmark = pytest.mark.slow

REPORTING = 'mechanism={name="page_reporting",order=3,delay="5ms",capacity=8}'
FEATURES = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX | 1 << F_PAGE_REPORTING
MIB = 1 << 20


def test_a_run_over_vhost_user_is_as_sound_as_any() -> None:
    churn = 'workload={kind="churn",duration="500ms",idle="200ms",order_max=10}'
    summary = run_real(real("churn", churn, REPORTING, 'run.transport="vhost-user"')).summary
    assert summary.oracle.violations == 0
    assert (summary.oracle.pages_checked or 0) > 10_000
    assert 0 < (summary.hinting.returned_bytes or 0) <= (summary.hinting.claimed_bytes or 0)
    assert (summary.hinting.reports or 0) > 0
    assert summary.stranded.in_flight_bytes == 0


def test_a_balloon_is_followed_and_asked_over_vhost_user() -> None:
    """Inflate, deflate, statistics and reporting at once; the guest runs out of memory, too."""
    targets = '[{at="0s",memory="8MiB"},{at="1s",memory="40MiB"}]'
    balloon = f'balloon={{every="20ms",statistics="50ms",manager={{name="steps",steps={targets}}}}}'
    work = 'workload={kind="memhog",delay="500ms",idle="1s"}'
    over = 'run.transport="vhost-user"'
    run = run_real(real("memhog", work, balloon, REPORTING, 'guest.memory="64MiB"', over))
    summary, figures = run.summary, run.summary.balloon
    assert summary.oracle.violations == 0
    assert (figures.oom_bytes or 0) > 0
    assert figures.targets == 2 and (figures.targets_reached or 0) >= 1
    assert (figures.guest_statistics or 0) > 5
    assert figures.balloon_bytes_end == (figures.inflated_bytes or 0) - (
        figures.deflated_bytes or 0
    )
    assert 0 < (summary.hinting.returned_bytes or 0) <= (summary.hinting.claimed_bytes or 0)
    assert figures.inflated_returned_bytes is not None
    assert 0 <= figures.inflated_returned_bytes <= (figures.inflated_bytes or 0)


def test_free_pages_are_hinted_over_vhost_user() -> None:
    work = (
        'workload={kind="migrate",start="1s",after="100ms",level=0.2,rate="32MiB/s",'
        'bandwidth="512MiB/s",rounds_max=4}'
    )
    hints = ('mechanism={name="free_page_hint",wait_for_ack=true}', 'guest.memory="512MiB"')
    summary = run_real(real("churn", work, *hints, 'run.transport="vhost-user"')).summary
    assert summary.oracle.violations == 0
    assert summary.workload["completed"] == 1
    assert (summary.hinting.blocks or 0) > 0


@pytest.mark.parametrize(
    ("setting", "named"),
    [('guest.ram="accounted"', "memfd"), ("host.huge_pages=true", r"host\.huge_pages")],
)
def test_memory_that_cannot_be_handed_over_is_refused(setting: str, named: str) -> None:
    settings = ['run.transport="vhost-user"', setting]
    with pytest.raises(ConfigError, match=named):
        Machine.create(load_scenario("memhog", settings), shared=False)


@contextmanager
def service(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, listening."""
    command = [sys.executable, "-m", "emulator", "vhost-user", "--socket", str(folder / "guest")]
    process = subprocess.Popen(
        [*command, "--output", str(folder / "run"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert any("waiting for a guest" in line for line in process.stderr)
        yield process
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()


async def report(folder: Path) -> None:
    """A guest of 4 MiB that reports the first two."""
    ram = GuestRam.create("memfd", 4 * MIB)
    os.pwrite(ram.fd, b"\1" * 4 * MIB, 0)
    front = socket.socket(socket.AF_UNIX)
    front.connect(str(folder / "guest"))
    layout = QueueLayout(size=32, table_entries=32)
    with trio.fail_after(30):
        async with vhost_user_reporter(front, ram, layout, 1 << 40, features=FEATURES) as found:
            assert await found.report(segments([0, MIB], [MIB, MIB]))
            assert os.fstat(ram.fd).st_blocks * 512 == 2 * MIB
    ram.close()


def ask(folder: Path, line: str) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(str(folder / "guest.control"))
        caller.sendall(line.encode() + b"\n")
        found: dict[str, object] = json.loads(caller.makefile().readline())
        return found


def test_the_command_serves_a_guest_until_it_leaves(tmp_path: Path) -> None:
    with service(tmp_path, "--json", "--target", "3MiB") as process:
        assert ask(tmp_path, "{}")["attached"] is False
        assert (tmp_path / "guest").stat().st_mode & 0o777 == 0o600
        trio.run(report, tmp_path)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    summary = json.loads(output)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["hinting"]["claimed_bytes"] == summary["hinting"]["returned_bytes"] == 2 * MIB
    assert summary["oracle"]["violations"] is None
    assert summary["workload"]["target_bytes"] == 3 * MIB
    with (tmp_path / "run" / "reports.csv").open(newline="") as file:
        ranges = [(row["report"], row["addr"], row["len"]) for row in csv.DictReader(file)]
    assert ranges == [("0", "0", str(MIB)), ("0", str(MIB), str(MIB))]
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    for name in ("scenario.toml", "series.csv", "manifest.json", "report.html", "log.jsonl"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_a_front_end_that_breaks_the_protocol_ends_the_service(tmp_path: Path) -> None:
    with service(tmp_path) as process, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "guest"))
        peer.sendall(b"\xff" * 12)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the guest's front-end:" in errors and "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["hinting"]["reports"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_look_at_the_socket_is_no_guest_and_one_that_comes_second_is_refused(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as process, socket.socket(socket.AF_UNIX) as peer:
        with socket.socket(socket.AF_UNIX) as look:
            look.connect(str(tmp_path / "guest"))
        assert ask(tmp_path, "{}")["attached"] is False
        assert process.poll() is None
        peer.connect(str(tmp_path / "guest"))
        peer.sendall(struct.pack("<III", 1, 1, 0))  # What are the features?
        assert len(peer.recv(100)) == 20
        with socket.socket(socket.AF_UNIX) as second, pytest.raises(FileNotFoundError):
            second.connect(str(tmp_path / "guest"))
        peer.close()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_what_was_served_until_an_interrupt_is_kept(tmp_path: Path) -> None:
    async def interrupt() -> None:
        ram = GuestRam.create("memfd", 4 * MIB)
        front = socket.socket(socket.AF_UNIX)
        front.connect(str(tmp_path / "guest"))
        layout = QueueLayout(size=32, table_entries=32)
        with trio.fail_after(30):
            async with vhost_user_reporter(front, ram, layout, 1 << 40, features=FEATURES) as it:
                assert await it.report(segments([0], [MIB]))
                process.send_signal(signal.SIGINT)
                await trio.to_thread.run_sync(process.wait)
        ram.close()

    with service(tmp_path) as process:
        try:
            trio.run(interrupt)
        except* RunFailed:  # The guest may have been asking for its configuration.
            pass
    assert process.returncode == 128 + signal.SIGINT
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["hinting"]["claimed_bytes"] == MIB
    assert summary["workload"]["target_bytes"] == summary["guest"]["memory_bytes"] > 4 * MIB


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_nobody_used_leaves_nothing(tmp_path: Path, number: int) -> None:
    with service(tmp_path) as process:
        process.send_signal(number)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_an_idle_service_takes_no_cpu_time(tmp_path: Path) -> None:
    def cpu_ticks() -> int:
        words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])

    with service(tmp_path) as process:
        ask(tmp_path, "{}")  # It has begun to wait.
        before = cpu_ticks()
        time.sleep(1.0)
        assert cpu_ticks() - before <= 1
        process.send_signal(signal.SIGINT)


def test_what_is_no_socket_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    command = [sys.executable, "-m", "emulator", "vhost-user", "--socket", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count(str(path)) == 1 and "is no socket; name another" in done.stderr
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--feature", "reporting"], "did you mean 'page_reporting'"),
        (["--target", "x"], "not a size"),
        (["--socket", "/none/socket"], "--socket: /none/socket: cannot be listened on"),
    ],
)
def test_bad_usage_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "emulator", "vhost-user", "--socket", str(tmp_path / "s")]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*/*"))
