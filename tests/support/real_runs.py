"""Runs in real processes, supervised by the test's own process: a test may see all and kill any."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulator.config.scenario import Scenario, load_scenario
from emulator.guest.mm.layout import LOCK_OWNER_MASK
from emulator.guests import create_guests
from emulator.launch.fork_server import start_fork_server
from emulator.launch.preload import marker, rehearse
from emulator.launch.processes import run_processes
from emulator.machine import Machine
from emulator.summary import SeriesRow, Summary
from tests.support.runs import Watcher

SHM: Final = Path("/dev/shm")


def real(name: str, *settings: str) -> Scenario:
    """The scenario `name` for processes: 128 MiB, sampled every 10 ms, ends after 60 s at most."""
    limits = ('run.sample="10ms"', 'run.time_limit="60s"', "expect=[]")
    return load_scenario(name, ['guest.memory="128MiB"', *limits, *settings])


@dataclass(frozen=True, slots=True)
class Run:
    """What a run said."""

    summary: Summary
    events: list[str]


class Processes:
    """A guest (the first) in processes and the pids of all parts; what a test sabotages."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def pid(self, name: str) -> int:
        """Of "host", "guest kernel" or "vCPU 0"; "guest 1: vCPU 0" if there are several guests."""
        return {child.name: child.pid or 0 for child in multiprocessing.active_children()}[name]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid(name), number)

    def stop(self, name: str) -> None:
        """Stop it where it is, and wait until it stands."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        while (state := state_of(pid)) != "T":
            assert state not in "XZ", f"{name} has ended"
            time.sleep(0)

    def kill_within_lock(self, cpu: int, locks: str = "zones") -> None:
        """Kill a vCPU inside of a critical section: it holds the first zone's lock, or that of
        "page_cache.control"."""
        zone = self.machine.guest[locks][0]
        ends_s = time.monotonic() + 30
        while time.monotonic() < ends_s:
            self.stop(f"vCPU {cpu}")
            if int(zone["lock"]) & LOCK_OWNER_MASK == cpu + 1:
                self.kill(f"vCPU {cpu}")
                return
            self.kill(f"vCPU {cpu}", signal.SIGCONT)
            time.sleep(0.0005)
        raise AssertionError(f"vCPU {cpu} was never seen with the lock")


def state_of(pid: int) -> str:
    """R, S, T and so on (proc(5)); X: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X"
    return stat[stat.rindex(")") + 2]


def run_real(
    scenario: Scenario, sabotage: Callable[[Processes, SeriesRow], None] | None = None
) -> Run:
    """Run it; `sabotage` is called at each sample, by the supervisor, while the run goes on.

    Its kernels are compiled before: the fork server of all these runs has loaded the first one's.
    """
    if not marker(scenario).exists():
        rehearse(scenario)
    context = start_fork_server(scenario)
    with create_guests(scenario, shared=True) as guests:
        processes = Processes(guests[0])

        def at_sample(row: SeriesRow) -> None:
            if sabotage is not None:
                sabotage(processes, row)

        watcher = Watcher(at_sample)
        return Run(run_processes(guests, context, watcher), watcher.events)


def once(
    when: Callable[[Processes, SeriesRow], bool], what: Callable[[Processes], None]
) -> Callable[[Processes, SeriesRow], None]:
    """Sabotage that happens at the first sample for which `when` holds."""
    done: list[bool] = []

    def sabotage(processes: Processes, row: SeriesRow) -> None:
        if not done and when(processes, row):
            done.append(True)
            what(processes)

    return sabotage


def orphaned_segments() -> set[str]:
    """Segments in /dev/shm that no process has mapped: what a run left behind."""
    names = {path.name for path in SHM.glob("psm_*")}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        names -= {name for name in names if f"{SHM}/{name}" in text}
    return {name for name in names if (SHM / name).exists()}
