"""replay: the page allocations and frees of a real kernel, as it was recorded.

Every CPU of the trace is a vCPU (with fewer vCPUs, each stands for several), at the trace's own
times or flat out.  What is not in a trace (splits, per-CPU lists, merges) the guest's allocator
does by itself; it hands out its own page frames for the traced ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import trio

from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import ACTOR_LOST, PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.traces.compile import ReplayProgram, compile_replay
from emulator.traces.layout import ALLOC, FREE, REPLAY_OPERATION
from emulator.traces.reader import TraceError, TraceStatistics, read_trace
from emulator.workloads.layout import REPLAY_PROGRESS, SLOT
from emulator.workloads.replay_kernels import replay_batch, verify_owned
from emulator.workloads.workload import Outcome

_AT_ONCE: Final = 16384
_QUANTUM_S: Final = 0.01  # Paced, a vCPU wakes at most so often.
_WAIT_S: Final = 50e-6  # For another vCPU that has not come so far yet.
_STUCK_S_MAX: Final = 2.0

COUNTS: Final = np.dtype(
    [
        (name, "<i8")
        for name in (
            "trace_lines",
            "trace_events",
            "lost_events",
            "unreadable_lines",
            "truncated",
            "preexisting_frees",
            "unmatched_frees",
            "partial_frees",
            "peak_bytes",
            "end_bytes",
        )
    ]
    + [("span_s", "<f8")]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Parameters.  `speed`: 1 is the trace's own time, 2 twice as fast, 0 flat out; without it, 1
    in virtual time and flat out in real time.  `warm`: pages that the trace frees without having
    allocated them are allocated before the start."""

    kind: ClassVar[str] = "replay"
    trace: Path
    speed: float | None = None
    warm: bool = False
    idle_s: float = 0.0  # after the last event

    def __post_init__(self) -> None:
        if self.speed is not None and not 0 <= self.speed <= 1e9:
            raise ValueError(f"speed: {self.speed} is not between 0 (flat out) and 1e9")
        if self.idle_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Read and compile the trace.  ConfigError: unreadable, or too large for the guest."""
        program, read = self._program(scenario, say)
        found = program.statistics
        pages = scenario.guest.memory_bytes // PAGE_SIZE
        if found.peak_pages > 0.9 * pages:
            wanted = -(-int(found.peak_pages * PAGE_SIZE / 0.85) >> 22) << 2
            raise ConfigError(
                f"{scenario.where('workload')}.trace: {self.trace} has up to "
                f"{found.peak_pages * PAGE_SIZE >> 20}MiB in use at once, too much for a guest of "
                f"{scenario.guest.memory_bytes >> 20}MiB; use --memory {wanted}MiB"
            )
        counts = np.zeros(1, COUNTS)
        for name in ("lost_events", "unreadable_lines", "truncated"):
            counts[name] = getattr(read, name)
        counts["trace_lines"], counts["trace_events"] = read.lines, read.events
        for name in ("preexisting_frees", "unmatched_frees", "partial_frees", "span_s"):
            counts[name] = getattr(found, name)
        counts["peak_bytes"] = found.peak_pages * PAGE_SIZE
        counts["end_bytes"] = found.end_pages * PAGE_SIZE
        operations = program.operations
        turns = turns_of(operations["slot"])
        # In virtual time, one task applies all of it in the order of the trace.  Processes apply
        # each vCPU's own, and wait for each other where a block passes from one to the other.
        cpu = operations["cpu"]
        if scenario.run.launcher == "virtual":
            cpu = np.zeros_like(cpu)
        order = np.argsort(cpu, kind="stable")
        starts = np.searchsorted(cpu[order], np.arange(scenario.guest.vcpus + 1))
        return {
            "operations": operations[order],
            "turns": turns[order],
            "starts": starts.astype(np.int64),
            "slots": np.zeros(max(program.slots, 1), SLOT),
            "progress": np.zeros(scenario.guest.vcpus, REPLAY_PROGRESS),
            "counts": counts,
        }

    def _program(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> tuple[ReplayProgram, TraceStatistics]:
        say(f"reading {self.trace.name}")
        try:
            trace = read_trace(self.trace)
            program = compile_replay(trace, cpus=scenario.guest.vcpus, warm=self.warm)
        except TraceError as error:
            raise ConfigError(f"{scenario.where('workload')}.trace: {error}") from None
        return with_blocks_before(program), trace.statistics

    def rehearsal(self) -> "Replay":
        """Two events, without a file."""
        return _Rehearsal(trace=self.trace, speed=0, idle_s=3.0)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Apply this vCPU's operations, then verify what is still in use."""
        virtual = bool(vcpu.mm.kernel[0]["virtual"])
        speed = (1.0 if virtual else 0.0) if self.speed is None else self.speed
        await vcpu.barrier()
        vcpu.phase("replay")
        first, end = (int(at) for at in arrays["starts"][vcpu.index : vcpu.index + 2])
        await _Player(vcpu, arrays, speed).play(first, end, for_all=virtual)
        await vcpu.barrier()
        if self.idle_s:
            vcpu.phase("idle")
            await vcpu.sleep(self.idle_s)
        vcpu.phase("verify")
        await vcpu.barrier()
        verify_owned(vcpu.mm, vcpu.ram, vcpu.index)
        await vcpu.settle()

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """What was replayed and what of the trace could not be."""
        counts = arrays["counts"][0]
        return {
            "events_applied": int(arrays["progress"]["applied"].sum()),
            "events_skipped": int(arrays["progress"]["skipped"].sum()),
            **{name: counts[name].item() for name in COUNTS.names or ()},
        }


class _Player:
    """One vCPU's way through its operations."""

    def __init__(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]], speed: float) -> None:
        self._vcpu = vcpu
        self._operations = arrays["operations"]
        self._times_ns = self._operations["time_ns"]
        self._rest = (arrays["turns"], arrays["slots"], arrays["progress"])
        self._speed = speed

    async def play(self, first: int, end: int, *, for_all: bool) -> None:
        vcpu = self._vcpu
        began_s = vcpu.begin_paying(for_all=for_all)
        moved_s = began_s
        at = first
        while at < end:
            until = min(at + _AT_ONCE, self._due(at, end, began_s))
            got = int(replay_batch(vcpu.mm, vcpu.ram, self._operations, *self._rest, at, until))
            at += got
            vcpu.after_batch()
            now_s = vcpu.clock.now_s()
            if got:
                moved_s = now_s
            if at < until:
                if self._orphaned(now_s - moved_s):
                    return
                await vcpu.sleep_until(now_s + _WAIT_S)
            elif self._speed and at < end:
                due_s = began_s + int(self._times_ns[at]) / 1e9 / self._speed
                await vcpu.sleep_until(max(due_s, min(due_s, now_s) + _QUANTUM_S))
            else:
                await trio.lowlevel.checkpoint()
            began_s += await vcpu.settle()
            began_s += await vcpu.pay()  # Whatever it cost moves all that follows.

    def _due(self, at: int, end: int, began_s: float) -> int:
        """The first operation after `at` whose time has not come."""
        if not self._speed:
            return end
        passed_ns = (self._vcpu.clock.now_s() - began_s) * self._speed * 1e9
        within = self._times_ns[at : min(at + _AT_ONCE, end)]
        return at + int(np.searchsorted(within, passed_ns, side="right"))

    def _orphaned(self, stuck_s: float) -> bool:
        """Whether this one waits for a vCPU that died: its part of the trace will never come."""
        actors = self._vcpu.mm.actors
        return stuck_s > _STUCK_S_MAX and bool((actors["state"] == ACTOR_LOST).any())


def turns_of(slots: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """For each operation, how many before it are on the same slot."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(slots) else order
    lengths = np.diff(np.append(firsts, len(slots)))
    turns = np.empty(len(slots), np.uint32)
    turns[order] = np.arange(len(slots)) - np.repeat(firsts, lengths)
    return turns


def with_blocks_before(program: ReplayProgram) -> ReplayProgram:
    """The same program with its `before` blocks as allocations at its start."""
    before = program.before
    if len(before) == 0:
        return program
    first = np.zeros(len(before), REPLAY_OPERATION)
    first["kind"] = ALLOC
    first["slot"], first["order"] = before["slot"], before["order"]
    first["migratetype"] = 1
    first["cpu"] = np.arange(len(before)) % program.cpus
    return ReplayProgram(
        operations=np.concatenate([first, program.operations]),
        before=before[:0],
        slots=program.slots,
        cpus=program.cpus,
        statistics=program.statistics,
    )


class _Rehearsal(Replay):
    """A block is allocated, half of it is freed, then the other half."""

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        operations = np.zeros(3, REPLAY_OPERATION)
        operations["kind"] = (ALLOC, FREE, FREE)
        operations["order"] = (1, 0, 0)
        operations["offset"] = (0, 0, 1)
        return {
            "operations": operations,
            "turns": turns_of(operations["slot"]),
            "starts": np.array([0, *[3] * scenario.guest.vcpus], np.int64),
            "slots": np.zeros(1, SLOT),
            "progress": np.zeros(scenario.guest.vcpus, REPLAY_PROGRESS),
            "counts": np.zeros(1, COUNTS),
        }
