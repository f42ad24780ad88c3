"""A guest of KVM: memory that the caller has mapped, vCPUs that run one program at a time.

Its vCPUs start in long mode, user mode (CPL 3), with all of the memory mapped where it lies; they
have no interrupts, no devices and no kernel, so that whatever stops a program is the host's doing.
A run ends when its program does: those of `programs` all do by themselves.  Nothing outlives the
process, for all there is are descriptors.  OSError: the system has no KVM or refuses something.
"""

import errno
import fcntl
import mmap
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.kvm import layout
from devices.kvm.layout import ExitReason
from devices.kvm.programs import DONE, IDENTIFY, NOTIFIED, NOTIFY, TOUCH, WATCH

DEVICE: Final = "/dev/kvm"
VCPUS_MAX: Final = 4
MEMORY_AT: Final = 2 << 20  # Below lie page tables, programs and words.
MEMORY_END_MAX: Final = 1 << 30  # One page of page-directory entries.

_PAGE: Final = 4096
_PML4, _PDPT, _PD, _PROGRAMS, _WORDS = range(0x1000, 0x6000, _PAGE)
_PRESENT_WRITABLE_USER: Final = 7
_PAGE_SIZE_2MIB: Final = 0x80
_RFLAGS: Final = 0x3002  # IOPL 3, and the bit that is always set.
_CR0: Final = 0x80050033  # PG, AM, WP, NE, ET, MP, PE
_CR4: Final = 0x620  # OSXMMEXCPT, OSFXSR, PAE
_EFER: Final = 0x500  # LMA, LME
_CODE: Final = {"selector": 0x33, "type": 11, "l": 1}
_DATA: Final = {"selector": 0x2B, "type": 3, "db": 1}
_SEGMENT: Final = {"limit": 0xFFFFFFFF, "present": 1, "dpl": 3, "s": 1, "g": 1}


class Vcpu:
    """One vCPU.  `run` blocks the thread that calls it; the rest is for any thread."""

    def __init__(self, machine: "VirtualMachine", number: int) -> None:
        self.number: Final = number
        self.words_at: Final = _WORDS + number * _PAGE
        words = machine.memory[self.words_at : self.words_at + layout.WORDS.itemsize]
        self.words: Final[npt.NDArray[Any]] = words.view(layout.WORDS)  # WORDS[1]
        self._fd: Final = fcntl.ioctl(machine.fd, layout.KVM_CREATE_VCPU, number)
        self._shared: Final = mmap.mmap(self._fd, machine.run_bytes)
        self._run: Final[npt.NDArray[Any]] = np.frombuffer(self._shared, layout.RUN, 1)
        fcntl.ioctl(self._fd, layout.KVM_SET_CPUID2, machine.cpuid)
        self._enter_long_mode()
        self.statistics: Final = Statistics(self._fd)

    def _enter_long_mode(self) -> None:
        buffer = bytearray(layout.SREGS.itemsize)
        fcntl.ioctl(self._fd, layout.KVM_GET_SREGS, buffer)
        sregs: npt.NDArray[Any] = np.frombuffer(buffer, layout.SREGS)
        for name in ("cs", "ds", "es", "fs", "gs", "ss"):
            segment = sregs[name]
            segment[:] = np.zeros(1, layout.SEGMENT)
            for field, value in {**_SEGMENT, **(_CODE if name == "cs" else _DATA)}.items():
                segment[field] = value
        for name, value in {"cr0": _CR0, "cr3": _PML4, "cr4": _CR4, "efer": _EFER}.items():
            sregs[name] = value
        fcntl.ioctl(self._fd, layout.KVM_SET_SREGS, buffer)

    @property
    def ticks_per_s(self) -> float:
        """How fast the guest's time-stamp counter goes."""
        return float(fcntl.ioctl(self._fd, layout.KVM_GET_TSC_KHZ, 0)) * 1000

    def run(self, program: bytes, **registers: int) -> int:
        """Run a program to its end; how often it left for the port NOTIFIED and was let go on.

        RuntimeError: it ended otherwise, with KVM's reason.
        """
        state = np.zeros(1, layout.REGS)
        start = {"rip": ENTRY_POINTS[program], "rflags": _RFLAGS, "rdi": self.words_at}
        for name, value in {**start, **registers}.items():
            state[name] = value
        self.words[:] = np.zeros(1, layout.WORDS)
        fcntl.ioctl(self._fd, layout.KVM_SET_REGS, state.tobytes())
        notified = 0
        while True:
            try:
                fcntl.ioctl(self._fd, layout.KVM_RUN, 0)
            except InterruptedError:
                continue
            reason, port = int(self._run[0]["exit_reason"]), int(self._run[0]["port"])
            if reason != ExitReason.IO or port not in (NOTIFIED, DONE):
                raise RuntimeError(f"the guest stopped with KVM's exit reason {reason}")
            if port == DONE:
                return notified
            notified += 1

    def close(self) -> None:
        """It must not be running."""
        self.statistics.close()
        os.close(self._fd)


class VirtualMachine:
    """memory: u1, mapped, a whole number of 2 MiB; it must outlive the machine."""

    def __init__(self, memory: npt.NDArray[np.uint8], vcpus: int, *, device: str = DEVICE) -> None:
        assert 1 <= vcpus <= VCPUS_MAX
        assert MEMORY_AT < len(memory) <= MEMORY_END_MAX
        self.memory: Final = memory
        self._lay_out()
        system = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.fd: Final = fcntl.ioctl(system, layout.KVM_CREATE_VM, 0)
            self.run_bytes: Final = fcntl.ioctl(system, layout.KVM_GET_VCPU_MMAP_SIZE, 0)
            self.cpuid: Final = bytearray(layout.CPUID.itemsize)
            self.cpuid[:4] = layout.CPUIDS_MAX.to_bytes(4, "little")
            fcntl.ioctl(system, layout.KVM_GET_SUPPORTED_CPUID, self.cpuid)
        finally:
            os.close(system)
        region = np.zeros(1, layout.REGION)
        region["memory_size"], region["userspace_addr"] = len(memory), memory.ctypes.data
        fcntl.ioctl(self.fd, layout.KVM_SET_USER_MEMORY_REGION, region.tobytes())
        self.statistics: Final = Statistics(self.fd)
        self.vcpus: Final = tuple(Vcpu(self, number) for number in range(vcpus))

    def _lay_out(self) -> None:
        tables: npt.NDArray[np.uint64] = self.memory[: _PROGRAMS + _PAGE].view(np.uint64)
        tables[_PML4 // 8] = _PDPT | _PRESENT_WRITABLE_USER
        tables[_PDPT // 8] = _PD | _PRESENT_WRITABLE_USER
        pages = np.arange(len(self.memory) >> 21, dtype=np.uint64) << np.uint64(21)
        entries = pages | np.uint64(_PAGE_SIZE_2MIB | _PRESENT_WRITABLE_USER)
        tables[_PD // 8 : _PD // 8 + len(pages)] = entries
        for program, at in ENTRY_POINTS.items():
            self.memory[at : at + len(program)] = np.frombuffer(program, np.uint8)

    def notify_eventfd(self, eventfd: int) -> None:
        """From now on a byte written to the port NOTIFIED is an event, and no exit to us."""
        wish = np.zeros(1, layout.IOEVENTFD)
        wish["addr"], wish["len"], wish["fd"] = NOTIFIED, 1, eventfd
        wish["flags"] = layout.IOEVENTFD_PIO
        fcntl.ioctl(self.fd, layout.KVM_IOEVENTFD, wish.tobytes())

    def close(self) -> None:
        """No vCPU must be running."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.statistics.close()
        os.close(self.fd)


class Statistics:
    """KVM's own counters of a machine or of a vCPU (KVM_GET_STATS_FD), those of one value."""

    def __init__(self, of: int) -> None:
        self._fd: Final = fcntl.ioctl(of, layout.KVM_GET_STATS_FD, 0)
        header = np.frombuffer(os.pread(self._fd, 24, 0), layout.STATS_HEADER)[0]
        name_size = int(header["name_size"])
        described = np.dtype([("desc", layout.STATS_DESC), ("name", f"S{name_size}")])
        size = described.itemsize * int(header["num_desc"])
        listed = np.frombuffer(os.pread(self._fd, size, int(header["desc_offset"])), described)
        self._at: Final = {
            one["name"].decode(): int(header["data_offset"]) + int(one["desc"]["offset"])
            for one in listed
            if one["desc"]["size"] == 1
        }

    @property
    def names(self) -> list[str]:
        """What this kernel counts."""
        return list(self._at)

    def value(self, name: str) -> int:
        """One counter, now.  OSError if this kernel does not have it."""
        if name not in self._at:
            raise OSError(errno.ENODATA, f"this KVM does not count {name}")
        return int.from_bytes(os.pread(self._fd, 8, self._at[name]), "little")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


def _entry_points() -> dict[bytes, int]:
    found, at = {}, _PROGRAMS
    for program in (WATCH, TOUCH, NOTIFY, IDENTIFY):
        found[program] = at
        at += -len(program) % 16 + len(program)
    return found


ENTRY_POINTS: Final = _entry_points()
