"""What a real guest does in a `uml_memhog` run, and what is seen of it from outside."""

import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import trio

from emulator.config.units import PAGE_BYTES
from emulator.errors import RunFailed
from emulator.observer import Observer
from emulator.serve.record import REPORTS_ACCOUNT, Report
from emulator.serve.service_task import Service
from emulator.summary import Phase, ReclaimLatency
from emulator.uml.guest_process import Mark, UmlGuest
from emulator.uml.memory_facts import MemoryFacts, parse_facts
from emulator.workloads.uml_memhog import UmlMemhog

_FOLLOW_S_MAX: Final = 20.0  # That the guest may take to follow its balloon's target.
_LOOK_EVERY_S: Final = 0.02
_OOM_BALLOON: Final = 0.5  # Of the guest's memory, while it is made to run out.
_OOM_FILL_PERCENT: Final = 120  # Of what is free then.


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One fill and free, in seconds since the guest attached."""

    fill_s: float
    full_s: float
    free_s: float
    freed_s: float
    filled_bytes: int
    reports: tuple[Report, ...]  # from the free to the end of the idle time

    @property
    def claimed_bytes(self) -> int:
        """What the guest reported after the free."""
        return sum(report.claimed_bytes for report in self.reports)

    @property
    def returned_bytes(self) -> int:
        """What of it came back, as measured."""
        return sum(report.returned_bytes for report in self.reports)


class MemhogRun:
    """One run: its guest, its phases, its figures."""

    def __init__(self, workload: UmlMemhog, service: Service, observer: Observer) -> None:
        self.iterations: Final[list[Iteration]] = []
        self.facts: MemoryFacts | None = None
        self.started_s: float | None = None  # The guest was up.
        self.pages_checked: int | None = None
        self.violations: int | None = None
        self._workload = workload
        self._service = service
        self._record = service.record
        self._reports: list[Report] = []
        self._record.observe_report = self._reports.append
        self._observer = observer
        self._begun: list[tuple[str, float]] = []  # Phases: name, start.
        self._follow_s: list[float] = []
        self._oom_taken_back_bytes: int | None = None

    async def run(self, guest: UmlGuest) -> None:
        """From the guest's start to its end; RunFailed if it ends before."""
        workload = self._workload
        started = await guest.wait_mark("start")
        self._observer.event(f"Linux {' '.join(started.words[1:])} is up")
        self._phase("start")
        self.started_s = self._record.since_s(started.at_s)
        kept = await guest.ask(f"keep {workload.keep_bytes >> 20}", "checksum")
        self.facts = await ask_facts(guest)
        await trio.sleep(workload.delay_s)
        for number in range(1, workload.iterations + 1):
            await self._hog(guest, number)
        if workload.balloon_bytes:
            await self._follow("inflate", workload.balloon_bytes)
            await self._follow("deflate", 0)
        if workload.oom:
            await self._run_out(guest)
        self._phase("check")
        found = await guest.ask("checksum", "checksum")
        self.pages_checked = workload.keep_bytes // PAGE_BYTES
        self.violations = int(found.words != kept.words)  # At least so many.
        self._phase("")

    @property
    def idle_s(self) -> float:
        """How long it idles after each free."""
        return self._workload.idle_s

    @property
    def discard_bytes_per_s(self) -> float:
        """How fast what it reported was given back."""
        account = self._record.accounts[REPORTS_ACCOUNT]
        return float(account["returned_bytes"]) * 1e9 / max(1, int(account["discard_ns"]))

    def latency_ms(self) -> ReclaimLatency:
        """From the beginning of a free, which takes some 30 ms, to the return of each block."""
        each = [
            (report.done_s - iteration.free_s) * 1e3
            for iteration in self.iterations
            for report in iteration.reports
            for _ in range(report.blocks)
        ]
        if not each:
            return ReclaimLatency()
        p50, p90, p99, most = (float(p) for p in np.percentile(each, [50, 90, 99, 100]))
        return ReclaimLatency(p50=p50, p90=p90, p99=p99, max=most)

    def figures(self) -> dict[str, Any]:
        """What is particular to this workload."""
        shares = [100 * i.returned_bytes / i.claimed_bytes for i in self.iterations if i.reports]
        every = len(shares) == len(self.iterations)
        return {
            "filled_bytes": sum(i.filled_bytes for i in self.iterations),
            "reports_after_free": [len(i.reports) for i in self.iterations],
            "reported_after_free_bytes": sum(i.claimed_bytes for i in self.iterations),
            "returned_after_free_bytes": sum(i.returned_bytes for i in self.iterations),
            "returned_percent_min": min(shares) if every else None,
            "balloon_follow_s_max": max(self._follow_s, default=None),
            "oom_taken_back_bytes": self._oom_taken_back_bytes,
            **self._record.figures,
        }

    def phases(self) -> list[Phase]:
        """The phases, with what was resident at their ends."""
        rows = [(row.time_s, row.resident_bytes or 0) for row in self._record.rows]
        times, resident = zip(*sorted(rows + self._record.noted), strict=True)
        return [
            Phase(
                name=name,
                start_s=round(start_s, 6),
                end_s=round(end_s, 6),
                resident_bytes_start=int(np.interp(start_s, times, resident)),
                resident_bytes_end=int(np.interp(end_s, times, resident)),
            )
            for (name, start_s), (_, end_s) in itertools.pairwise(self._begun)
        ]

    async def _hog(self, guest: UmlGuest, number: int) -> None:
        fill = await guest.ask(f"fill {self._workload.fraction * 100:.0f}", "fill")
        self._phase(f"fill {number}", fill)
        full = await guest.wait_mark("full")
        before = len(self._reports)
        empty = await guest.ask("empty", "empty")
        self._phase(f"free {number}", empty)
        emptied = await guest.wait_mark("emptied")
        self._phase(f"idle {number}", emptied)
        await trio.sleep(self._workload.idle_s)
        since = self._record.since_s
        self.iterations.append(
            Iteration(
                fill_s=since(fill.at_s),
                full_s=since(full.at_s),
                free_s=since(empty.at_s),
                freed_s=since(emptied.at_s),
                filled_bytes=int(full.words[1]) << 20,
                reports=tuple(self._reports[before:]),
            )
        )

    async def _follow(self, name: str, balloon_bytes: int) -> None:
        """Change the balloon's target and wait until the guest is there."""
        self._phase(name)
        balloon = self._record.balloon
        began_s = trio.current_time()
        self._service.set_target(balloon.memory_bytes - balloon_bytes if balloon_bytes else None)
        wanted = balloon_bytes // PAGE_BYTES * PAGE_BYTES
        with trio.move_on_after(_FOLLOW_S_MAX):
            while balloon.actual_bytes != wanted:
                await trio.sleep(_LOOK_EVERY_S)
            self._follow_s.append(trio.current_time() - began_s)
            return
        raise RunFailed(
            f"the guest's balloon has {balloon.actual_bytes} bytes, not {wanted}, "
            f"{_FOLLOW_S_MAX:g} s after it was asked"
        )

    async def _run_out(self, guest: UmlGuest) -> None:
        """Fill more than is free: the guest must take pages back from its balloon."""
        balloon = self._record.balloon
        held = int(balloon.memory_bytes * _OOM_BALLOON) // PAGE_BYTES * PAGE_BYTES
        await self._follow("inflate for OOM", held)
        self._phase("run out of memory")
        await guest.ask(f"fill {_OOM_FILL_PERCENT}", "full")
        self._oom_taken_back_bytes = held - balloon.actual_bytes
        await guest.ask("empty", "emptied")
        await self._follow("deflate after OOM", 0)
        self._phase("idle after OOM")
        await trio.sleep(self._workload.idle_s)

    def _phase(self, name: str, mark: Mark | None = None) -> None:
        now_s = self._record.note()
        self._begun.append((name, now_s if mark is None else self._record.since_s(mark.at_s)))
        if name:
            self._observer.phase(name)


async def ask_facts(guest: UmlGuest) -> MemoryFacts:
    """What the guest's kernel knows of its memory now."""
    await guest.command("memory")
    words = []
    while (mark := await guest.wait_mark("memory")).words[1:] != ("done",):
        words.append(mark.words[1])
    return parse_facts(words)
