"""What the host's half costs a guest over vhost-user: a report, and an idle guest.

The guest is the emulated one's own front-end, with memory that nothing is behind: then discards
take next to no time, and a report's time is what handling it takes.
"""

import ctypes
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import trio

from devices.balloon.driver_task import FreePageReporter
from devices.balloon.features import feature_bits
from devices.balloon.layout import PAGE_REPORTING_CAPACITY
from devices.memory.ram import GuestRam
from devices.virtio.chain import segments
from devices.virtio.queue_layout import QueueLayout
from emulator.bench.series import Measurement
from emulator.errors import RunFailed
from emulator.guest.vhost_user_task import vhost_user_reporter
from emulator.host.layout import HOST
from emulator.host.rehearsal import rehearse
from emulator.host.vhost_user_task import serve_emulated_guest
from emulator.observer import Observer

_FEATURES: Final = feature_bits(["page_reporting"])
_BLOCK_BYTES: Final = 4 << 20
_BLOCKS: Final = PAGE_REPORTING_CAPACITY
_RAM_BYTES: Final = 2 * _BLOCKS * _BLOCK_BYTES  # Every other block, so that none are joined.
_RING_ADDR: Final = 1 << 52
_PUNCH_HOLE_KEEP_SIZE: Final = 3
_START_S_MAX: Final = 120.0
_REST_S: Final = 5.0  # After that, samples are as rare as they become.
_IDLE_S: Final = 20.0


def measure_report(
    names: Sequence[str], observer: Observer, *, repeats: int = 200
) -> Mapping[str, Measurement]:
    """`vhost_user.report_overhead_us`: one value for each report."""
    rehearse()
    overheads_us, bare_us = trio.run(_reports, repeats)
    note = f"the bare discards take {bare_us:.1f} us"
    return {name: Measurement(tuple(overheads_us), note) for name in names}


def measure_idle(
    names: Sequence[str],
    observer: Observer,
    *,
    rest_s: float = _REST_S,
    idle_s: float = _IDLE_S,
    repeats: int = 3,
) -> Mapping[str, Measurement]:
    """`vhost_user.idle_cpu_percent`: one value for each span of idling."""
    values = trio.run(_idle, rest_s, idle_s, repeats)
    return {name: Measurement(tuple(values)) for name in names}


async def _reports(repeats: int) -> tuple[list[float], float]:
    front, back = socket.socketpair()
    ram = GuestRam.create("memfd", _RAM_BYTES)
    addresses = np.arange(_BLOCKS) * 2 * _BLOCK_BYTES
    ranges = segments(addresses.tolist(), [_BLOCK_BYTES] * _BLOCKS)
    account = np.zeros(1, HOST)
    found_us = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_emulated_guest(back, account, features=_FEATURES))
        async with _front_end(front, ram) as reporter:
            await reporter.report(ranges)
            bare_us = _bare_us(ram.fd, addresses.tolist(), repeats)
            for _ in range(repeats):
                began_s = time.perf_counter()
                await reporter.report(ranges)
                found_us.append((time.perf_counter() - began_s) * 1e6 - bare_us)
    ram.close()
    if account[0]["ranges"] != (repeats + 1) * _BLOCKS:
        raise RunFailed(f"{account[0]['ranges']} ranges were discarded, not those reported")
    return found_us, bare_us


def _bare_us(fd: int, addresses: Sequence[int], repeats: int) -> float:
    """The median time of the same discards in a loop."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    times_s = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        for address in addresses:
            if fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, address, _BLOCK_BYTES) != 0:
                raise RunFailed("the system refused to punch a hole into the guest's memory")
        times_s.append(time.perf_counter() - began_s)
    return float(np.median(times_s)) * 1e6


async def _idle(rest_s: float, idle_s: float, repeats: int) -> list[float]:
    """CPU time of the command while a guest is attached that does nothing, percent of one CPU."""
    with tempfile.TemporaryDirectory(prefix="emulator-") as folder:
        path = Path(folder) / "guest"
        command = [sys.executable, "-m", "emulator", "vhost-user", "--socket", str(path)]
        process = await trio.lowlevel.open_process(
            [*command, "--output", str(Path(folder) / "run")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with trio.fail_after(_START_S_MAX):
                while not path.exists():
                    await trio.sleep(0.05)
            front = socket.socket(socket.AF_UNIX)
            front.connect(str(path))
            ram = GuestRam.create("memfd", _RAM_BYTES)
            values = []
            async with _front_end(front, ram):
                await trio.sleep(rest_s)
                for _ in range(repeats):
                    before_ns = _cpu_ns(process.pid)
                    await trio.sleep(idle_s)
                    values.append((_cpu_ns(process.pid) - before_ns) / 1e7 / idle_s)
            ram.close()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    return values


def _cpu_ns(pid: int) -> int:
    """CPU time of the threads of a process that live."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks)


@asynccontextmanager
async def _front_end(front: socket.socket, ram: GuestRam) -> AsyncIterator[FreePageReporter]:
    layout = QueueLayout(size=_BLOCKS, table_entries=_BLOCKS)
    connected = vhost_user_reporter(front, ram, layout, _RING_ADDR, features=_FEATURES)
    async with connected as reporter:
        yield reporter
