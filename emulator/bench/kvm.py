"""What a discard costs a guest of KVM: interruptions of its vCPUs, their time, and its host's.

A guest of a few instructions (`devices.kvm`) has touched memory, and its vCPU goes on counting, on
a CPU of its own, in other pages.  Meanwhile another thread punches holes into what it has touched,
as a VMM does.  Each discard is held against a span of the same length without one, in turns:

    interruptions   rounds of the guest's loop that took longer than a threshold: its own view
    time lost       rounds that the loop is short of, at the rate of the span without a discard
    exits           KVM's counter of this vCPU
    IPIs            /proc/interrupts, the function calls (which TLB shootdowns are counted among) of
                    the vCPU's CPU

Spans are dropped in which the vCPU was away for longer than any discard takes it: on a busy machine
its thread is preempted.

What is to be expected (Linux 6.18): fallocate(2) unmaps the range from every process that has it
mapped (`shmem_fallocate`, `unmap_mapping_range`).  Before the page tables of the process change,
KVM drops what it has of the range and interrupts the vCPUs that run, so that they flush: once
(`kvm_mmu_notifier_invalidate_range_start`, `kvm_flush_remote_tlbs`).  Then the pages are unmapped
from the process, where a fault of the guest has put them, too (`hva_to_pfn`), and the CPUs that run
one of its threads are interrupted, vCPUs included: once for each page table, of 2 MiB, in which a
page was dirty (`zap_present_folio_ptes` sets `force_flush`), and once for a huge page.  Hence 2 for
a block that does not cross a boundary of 2 MiB in the host's addresses.
"""

import ctypes
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from devices.kvm.programs import IDENTIFY, NOTIFY, TOUCH, WATCH
from devices.kvm.virtual_machine import DEVICE, MEMORY_AT, Vcpu, VirtualMachine
from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.bench.cache_line import two_cpus
from emulator.bench.series import Measurement
from emulator.errors import RunFailed
from emulator.observer import Observer

KIB: Final = 1 << 10
BLOCK_BYTES: Final = 32 * KIB  # About what page_reporting's blocks have at order 0.
_OTHER_BLOCKS: Final = (4 * KIB, 2048 * KIB, 4096 * KIB)
_RAM_BYTES: Final = 128 << 20
_DISCARDS: Final = 100  # In a round, or as many as there is memory for.
_ROUNDS: Final = 15
_GAP_S: Final = 0.5e-6  # A round of the loop takes 0.02 us, an interruption several.
_SPAN_S: Final = 100e-6  # From before a discard until its effects are looked at.
_AWAY_S_MAX: Final = 100e-6  # Longer than that a vCPU was not interrupted, but preempted.
_SPANS_MIN: Final = 3
_PAGE_TABLE_BYTES: Final = 2 << 20
_LIMIT_S: Final = 10.0  # After that the guest's loop ends by itself.
_EXITS: Final = 20_000
_PUNCH_HOLE_KEEP_SIZE: Final = 3
_BACK_ENDS: Final = ("kvm_intel", "kvm_amd", "kvm_pvm")


class Found(NamedTuple):
    """Of the discards of one round: means of counts, medians of times."""

    interruptions: float
    exits: float
    ipis: float
    lost_us: float
    discard_us: float


@dataclass(frozen=True, slots=True)
class _Span:
    """What went on in a span of time.  away_s: in rounds of the loop beyond the threshold"""

    gaps: int
    away_s: float
    rounds: int
    exits: int
    ipis: int
    elapsed_s: float
    act_s: float


class _Program:
    """A program that runs on a thread, pinned to a CPU."""

    def __init__(self, vcpu: Vcpu, cpu: int, program: bytes, **registers: int) -> None:
        self._error: Exception | None = None
        self._elapsed_s = 0.0

        def work() -> None:
            os.sched_setaffinity(0, {cpu})  # Of this thread alone.
            began_s = time.perf_counter()
            try:
                vcpu.run(program, **registers)
            except (OSError, RuntimeError) as error:
                self._error = error
            self._elapsed_s = time.perf_counter() - began_s

        self._thread: Final = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def ended(self, within_s: float) -> bool:
        """Whether it ends by then."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def elapsed_s(self) -> float:
        """Seconds that it took, once it has ended; RunFailed: it did not end as it should."""
        self._thread.join()
        if self._error is not None:
            raise RunFailed(f"the guest of KVM: {self._error}")
        return self._elapsed_s


class Instrument:
    """A guest with one vCPU.  cpus: of the thread that discards, and of the vCPU.

    The first is pinned until the guest is closed.  OSError: KVM is not there, or refuses.
    """

    def __init__(self, cpus: tuple[int, int], device: str = DEVICE) -> None:
        self._cpus: Final = cpus
        self._ram: Final = GuestRam.create("memfd", _RAM_BYTES)
        try:
            self.memory: Final = self._ram.view().words.view(np.uint8)
            self.machine: Final = VirtualMachine(self.memory, 1, device=device)
        except OSError:
            self._ram.close()
            raise
        self._vcpu: Final = self.machine.vcpus[0]
        self._words: Final[Any] = self._vcpu.words
        # Blocks of 2 MiB lie in a page table of the host each, as in a VMM that aligns its mapping.
        self.start: Final = MEMORY_AT + -(self.memory.ctypes.data + MEMORY_AT) % _PAGE_TABLE_BYTES
        self._ticks_per_s: Final = self._vcpu.ticks_per_s
        self._fallocate: Final = ctypes.CDLL(None, use_errno=True).fallocate
        self._fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

        self._allowed: Final = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpus[0]})

    def close(self) -> None:
        """No program is running."""
        os.sched_setaffinity(0, self._allowed)
        self.machine.close()
        self._ram.close()

    @property
    def exits(self) -> int:
        """KVM's counter."""
        return self._vcpu.statistics.value("exits")

    def timed(self, program: bytes, **registers: int) -> float:
        """Seconds that the vCPU takes for a program."""
        return _Program(self._vcpu, self._cpus[1], program, **registers).elapsed_s()

    def touch(self, size_bytes: int) -> float:
        """Have the guest write to each page of so much memory; seconds."""
        return self.timed(TOUCH, rsi=self.start, r8=self.start + size_bytes)

    def blocks(self, block_bytes: int) -> range:
        """Where the blocks of a round begin."""
        count = min(_DISCARDS, (_RAM_BYTES - self.start) // block_bytes)
        return range(self.start, self.start + count * block_bytes, block_bytes)

    def discard(self, offset: int, size_bytes: int) -> None:
        """As the host does."""
        if self._fallocate(self._ram.fd, _PUNCH_HOLE_KEEP_SIZE, offset, size_bytes) != 0:
            raise RunFailed("the system refused to punch a hole into the guest's memory")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The vCPU counts meanwhile; it has stopped on the way out."""
        ticks, gap = int(_LIMIT_S * self._ticks_per_s), int(_GAP_S * self._ticks_per_s)
        self._words["rounds"] = 0
        program = _Program(self._vcpu, self._cpus[1], WATCH, r8=ticks, r9=gap)
        try:
            self._wait_running()
            yield
        finally:
            self._words["stop"] = 1
            while not program.ended(within_s=0.01):
                self._words["stop"] = 1  # The program had not begun, which clears it.
        program.elapsed_s()

    def _wait_running(self) -> None:
        """Until the vCPU is in its loop.  RunFailed: not within the limit."""
        until_s = time.perf_counter() + _LIMIT_S
        rounds = self._words["rounds"]
        seen = int(rounds[0])
        while int(rounds[0]) in (seen, 0):
            if time.perf_counter() > until_s:
                raise RunFailed("the vCPU of the guest of KVM did not get to run")

    def span(self, act: Callable[[], None]) -> _Span:
        """Do it while the vCPU runs, and see what becomes of the vCPU."""
        ipis, exits = function_calls(self._cpus[1]), self.exits
        self._wait_running()
        before, began_s = self._words[0].copy(), time.perf_counter()
        act()
        acted_s = time.perf_counter()
        while time.perf_counter() < began_s + _SPAN_S:
            pass
        self._wait_running()
        after, ended_s = self._words[0].copy(), time.perf_counter()
        return _Span(
            gaps=int(after["gaps"]) - int(before["gaps"]),
            away_s=(int(after["gap_ticks"]) - int(before["gap_ticks"])) / self._ticks_per_s,
            rounds=int(after["rounds"]) - int(before["rounds"]),
            exits=self.exits - exits,
            ipis=function_calls(self._cpus[1]) - ipis,
            elapsed_s=ended_s - began_s,
            act_s=acted_s - began_s,
        )


def function_calls(cpu: int) -> int:
    """Function-call interrupts of a CPU so far, TLB shootdowns among them."""
    lines = Path("/proc/interrupts").read_text().splitlines()
    column = lines[0].split().index(f"CPU{cpu}")
    return next(int(line.split()[1 + column]) for line in lines if line.strip().startswith("CAL:"))


def discards_while_running(
    instrument: Instrument, block_bytes: int, *, touched: bool = True, ours_too: bool = False
) -> Found:
    """A round of discards of so much each while the vCPU runs, in turns with nothing.

    touched: the guest has touched what is discarded;  ours_too: this process has, too
    """
    blocks = instrument.blocks(block_bytes)
    if touched:
        instrument.touch(blocks.stop - blocks.start)
    if ours_too:
        instrument.memory[blocks.start : blocks.stop : PAGE_SIZE] = 1
    pairs = []
    with instrument.watching():
        for at in blocks:
            without = instrument.span(lambda: None)
            pairs.append((without, instrument.span(partial(instrument.discard, at, block_bytes))))
    kept = [(a, b) for a, b in pairs if max(a.away_s, b.away_s) < _AWAY_S_MAX]
    if len(kept) < _SPANS_MIN:
        raise RunFailed("other processes left the guest of KVM no CPU to itself")
    lost_s = [b.elapsed_s - a.elapsed_s * b.rounds / a.rounds for a, b in kept]
    return Found(
        interruptions=statistics.fmean(b.gaps - a.gaps for a, b in kept),
        exits=statistics.fmean(b.exits - a.exits for a, b in kept),
        ipis=statistics.fmean(b.ipis - a.ipis for a, b in kept),
        lost_us=statistics.median(lost_s) * 1e6,
        discard_us=statistics.median(b.act_s - a.act_s for a, b in kept) * 1e6,
    )


def discards_while_stopped(instrument: Instrument, block_bytes: int) -> float:
    """The same, the vCPU not running: median time of a discard, us."""
    blocks = instrument.blocks(block_bytes)
    instrument.touch(blocks.stop - blocks.start)
    times_s = []
    for at in blocks:
        began_s = time.perf_counter()
        instrument.discard(at, block_bytes)
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s) * 1e6


def fault_us(instrument: Instrument, size_bytes: int = 16 << 20) -> float:
    """Time of the guest's first touch of a page of 4 KiB, beyond that of a later one."""
    fresh_s = instrument.touch(size_bytes)
    again_s = instrument.touch(size_bytes)
    instrument.discard(instrument.start, size_bytes)
    return (fresh_s - again_s) / (size_bytes // PAGE_SIZE) * 1e6


def exit_us(instrument: Instrument, program: bytes, count: int = _EXITS) -> tuple[float, float]:
    """Time of an instruction that leaves the guest, and KVM's exits for each."""
    before = instrument.exits
    elapsed_s = instrument.timed(program, r8=count)
    return elapsed_s / count * 1e6, (instrument.exits - before) / count


def back_end() -> str:
    """Which of KVM's back-ends there are, and whether they run on a machine that is a guest."""
    found = [name for name in _BACK_ENDS if Path(f"/sys/module/{name}").exists()]
    guest = " hypervisor" in Path("/proc/cpuinfo").read_text()
    return " or ".join(found or ["unknown back-end"]) + (", itself in a guest" if guest else "")


def measure_kvm(
    names: Sequence[str], observer: Observer, *, rounds: int = _ROUNDS, device: str = DEVICE
) -> Mapping[str, Measurement]:
    """Every `kvm.` series: a value a round; none without KVM."""
    cpus = two_cpus()
    if cpus is None:
        return {name: Measurement((), "needs two CPUs") for name in names}
    try:
        instrument = Instrument(cpus, device)
    except OSError as error:
        return {name: Measurement((), f"{device}: {error.strerror}") for name in names}
    try:
        measured = _measure(instrument, rounds)
    except OSError as error:  # A counter or a request that this KVM does not have.
        return {name: Measurement((), f"{device}: {error.strerror}") for name in names}
    finally:
        instrument.close()
    return {name: measured[name] for name in names}


def _measure(instrument: Instrument, rounds: int) -> dict[str, Measurement]:
    found, stopped_us, faults_us = [], [], []
    for _ in range(rounds):
        found.append(discards_while_running(instrument, BLOCK_BYTES))
        stopped_us.append(discards_while_stopped(instrument, BLOCK_BYTES))
        faults_us.append(fault_us(instrument))
    other = partial(discards_while_running, instrument)
    conditions = {
        **{f"{size // KIB} KiB": partial(other, size) for size in _OTHER_BLOCKS},
        "touched by the host's process too": partial(other, BLOCK_BYTES, ours_too=True),
        "by it alone": partial(other, BLOCK_BYTES, touched=False, ours_too=True),
        "by nobody": partial(other, BLOCK_BYTES, touched=False),
    }
    notes = [f"{title}: {abs(do().ipis):.1f}" for title, do in conditions.items()]
    cpuid_us, cpuid_exits = exit_us(instrument, IDENTIFY)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        instrument.machine.notify_eventfd(eventfd)
        notified = [exit_us(instrument, NOTIFY) for _ in range(rounds)]
        if os.eventfd_read(eventfd) != rounds * _EXITS:
            raise RunFailed("the guest of KVM was not notified as often as it notified")
    finally:
        os.close(eventfd)
    where = back_end()
    each_us = [one.lost_us / one.interruptions for one in found if one.interruptions]
    spread = f"; {statistics.median(each_us):.1f} us each time" if each_us else ""
    return {
        "kvm.flushes_per_discard": _values(
            found, "interruptions", f"{where}; other blocks, by IPIs: {', '.join(notes)}"
        ),
        "kvm.exits_per_discard": _values(found, "exits", where),
        "kvm.ipis_per_discard": _values(found, "ipis", where),
        "kvm.interrupted_us_per_discard": _values(found, "lost_us", where + spread),
        "kvm.discard_us": _values(found, "discard_us", where),
        "kvm.discard_stopped_us": Measurement(tuple(stopped_us), where),
        "kvm.fault_us": Measurement(tuple(faults_us), where),
        "kvm.exit_us": Measurement(
            tuple(us for us, _ in notified),
            f"{where}; {notified[0][1]:.1f} exits each; CPUID: {cpuid_us:.1f} us and "
            f"{cpuid_exits:.1f} exits of this KVM",
        ),
    }


def _values(found: Sequence[Found], name: str, note: str) -> Measurement:
    return Measurement(tuple(getattr(one, name) for one in found), note)
