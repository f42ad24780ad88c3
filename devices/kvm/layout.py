"""What is passed to and from /dev/kvm, as far as a guest of a few instructions needs it (x86-64).

Source: Linux, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h, whose names these are;
the meaning of each request in Documentation/virt/kvm/api.rst.

Where the guest finds what, a page each (guest-physical, which is also where it is mapped):

    0x1000   PML4, 0x2000 PDPT, 0x3000 PD     written before the first run; 2 MiB a page
    0x4000   its programs                     written before the first run
    0x5000   WORDS of vCPU 0, 0x6000 of vCPU 1, ...
    2 MiB    and above: what it touches, and its host discards
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np

REGION: Final = np.dtype(  # struct kvm_userspace_memory_region
    [
        ("slot", "<u4"),
        ("flags", "<u4"),
        ("guest_phys_addr", "<u8"),
        ("memory_size", "<u8"),
        ("userspace_addr", "<u8"),
    ]
)
assert REGION.itemsize == 32

_GENERAL: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")
_GENERAL_64: Final = tuple(f"r{number}" for number in range(8, 16))
REGS: Final = np.dtype([(name, "<u8") for name in (*_GENERAL, *_GENERAL_64, "rip", "rflags")])
assert REGS.itemsize == 144

_SEGMENT_BYTES: Final = ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "pad")
SEGMENT: Final = np.dtype(  # struct kvm_segment
    [
        ("base", "<u8"),
        ("limit", "<u4"),
        ("selector", "<u2"),
        *((name, "u1") for name in _SEGMENT_BYTES),
    ]
)
assert SEGMENT.itemsize == 24

_DTABLE: Final = np.dtype([("base", "<u8"), ("limit", "<u2"), ("pad", "<u2", 3)])
SREGS: Final = np.dtype(  # struct kvm_sregs
    [
        *((name, SEGMENT) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        *((name, _DTABLE) for name in ("gdt", "idt")),
        *((name, "<u8") for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", "<u8", 4),
    ]
)
assert SREGS.itemsize == 312

CPUIDS_MAX: Final = 256
CPUID: Final = np.dtype(  # struct kvm_cpuid2, with room for so many
    [("nent", "<u4"), ("padding", "<u4"), ("entries", "<u4", (CPUIDS_MAX, 10))]
)
assert CPUID.itemsize == 8 + 40 * CPUIDS_MAX

IOEVENTFD: Final = np.dtype(  # struct kvm_ioeventfd
    [
        ("datamatch", "<u8"),
        ("addr", "<u8"),
        ("len", "<u4"),
        ("fd", "<i4"),
        ("flags", "<u4"),
        ("pad", "u1", 36),
    ]
)
assert IOEVENTFD.itemsize == 64
IOEVENTFD_PIO: Final = 2

RUN: Final = np.dtype(  # the head of struct kvm_run, with what an exit for a port has
    {
        "names": ["immediate_exit", "exit_reason", "port"],
        "formats": ["u1", "<u4", "<u2"],
        "offsets": [1, 8, 34],
        "itemsize": 36,
    }
)

STATS_HEADER: Final = np.dtype(  # struct kvm_stats_header
    [
        (name, "<u4")
        for name in ("flags", "name_size", "num_desc", "id_offset", "desc_offset", "data_offset")
    ]
)
STATS_DESC: Final = np.dtype(  # struct kvm_stats_desc; its name follows, `name_size` bytes
    [
        ("flags", "<u4"),
        ("exponent", "<i2"),
        ("size", "<u2"),
        ("offset", "<u4"),
        ("bucket_size", "<u4"),
    ]
)
assert STATS_HEADER.itemsize == 24
assert STATS_DESC.itemsize == 16

# What the guest counts; all but `stop` are written by its vCPU, and `stop` by the host.
WORDS: Final = np.dtype([(name, "<u8") for name in ("rounds", "gaps", "gap_ticks", "stop")])


class ExitReason(IntEnum):
    """KVM_EXIT_..., those that are told apart."""

    IO = 2
    SHUTDOWN = 8


def _request(number: int, reads: bool = False, writes: bool = False, of: Any = None) -> int:
    """_IO, _IOR, _IOW or _IOWR of `KVMIO` (include/uapi/asm-generic/ioctl.h)."""
    size = 0 if of is None else np.dtype(of).itemsize
    return (reads << 31) | (writes << 30) | (size << 16) | (0xAE << 8) | number


KVM_CREATE_VM: Final = _request(0x01)
KVM_GET_VCPU_MMAP_SIZE: Final = _request(0x04)
KVM_GET_SUPPORTED_CPUID: Final = _request(0x05, True, True, of="u8")  # Of struct kvm_cpuid2[0].
KVM_CREATE_VCPU: Final = _request(0x41)
KVM_SET_USER_MEMORY_REGION: Final = _request(0x46, writes=True, of=REGION)
KVM_IOEVENTFD: Final = _request(0x79, writes=True, of=IOEVENTFD)
KVM_RUN: Final = _request(0x80)
KVM_SET_REGS: Final = _request(0x82, writes=True, of=REGS)
KVM_GET_SREGS: Final = _request(0x83, reads=True, of=SREGS)
KVM_SET_SREGS: Final = _request(0x84, writes=True, of=SREGS)
KVM_SET_CPUID2: Final = _request(0x90, writes=True, of="u8")
KVM_GET_TSC_KHZ: Final = _request(0xA3)
KVM_GET_STATS_FD: Final = _request(0xCE)
