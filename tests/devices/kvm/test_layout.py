"""Layouts and requests of /dev/kvm, against what the kernel's headers make of them on x86-64."""

import numpy as np
import pytest

from devices.kvm import layout, programs


@pytest.mark.parametrize(
    ("request_number", "value"),
    [
        (layout.KVM_CREATE_VM, 0xAE01),
        (layout.KVM_GET_VCPU_MMAP_SIZE, 0xAE04),
        (layout.KVM_GET_SUPPORTED_CPUID, 0xC008AE05),
        (layout.KVM_CREATE_VCPU, 0xAE41),
        (layout.KVM_SET_USER_MEMORY_REGION, 0x4020AE46),
        (layout.KVM_IOEVENTFD, 0x4040AE79),
        (layout.KVM_RUN, 0xAE80),
        (layout.KVM_SET_REGS, 0x4090AE82),
        (layout.KVM_GET_SREGS, 0x8138AE83),
        (layout.KVM_SET_SREGS, 0x4138AE84),
        (layout.KVM_SET_CPUID2, 0x4008AE90),
        (layout.KVM_GET_TSC_KHZ, 0xAEA3),
        (layout.KVM_GET_STATS_FD, 0xAECE),
    ],
)
def test_requests_are_those_of_the_headers(request_number: int, value: int) -> None:
    assert request_number == value


@pytest.mark.parametrize(
    ("of", "field", "offset"),
    [
        (layout.REGION, "userspace_addr", 24),
        (layout.REGS, "rdi", 40),
        (layout.REGS, "r8", 64),
        (layout.REGS, "rip", 128),
        (layout.SEGMENT, "dpl", 16),
        (layout.SREGS, "ss", 120),
        (layout.SREGS, "gdt", 192),
        (layout.SREGS, "cr3", 240),
        (layout.SREGS, "efer", 264),
        (layout.CPUID, "entries", 8),
        (layout.IOEVENTFD, "flags", 24),
        (layout.RUN, "exit_reason", 8),
        (layout.RUN, "port", 34),
        (layout.STATS_HEADER, "data_offset", 20),
        (layout.STATS_DESC, "offset", 8),
    ],
)
def test_fields_lie_where_the_structures_have_them(
    of: "np.dtype[np.void]", field: str, offset: int
) -> None:
    assert of.fields is not None
    assert of.fields[field][1] == offset


def test_what_the_guest_counts_lies_where_its_programs_write() -> None:
    words = np.arange(4, dtype="<u8").view(layout.WORDS)[0]
    assert words.tolist() == (0, 1, 2, 3)
    assert (words["gaps"], words["gap_ticks"], words["stop"]) == (1, 2, 3)


@pytest.mark.parametrize("name", ["WATCH", "TOUCH", "NOTIFY", "IDENTIFY"])
def test_every_program_ends_at_the_port(name: str) -> None:
    assert getattr(programs, name).endswith(bytes([0xE6, programs.DONE]))


def test_a_listing_is_the_bytes_before_its_words() -> None:
    assert bytes.fromhex("e680 48ff07 49ffc8 75f6 e681") == programs.NOTIFY
