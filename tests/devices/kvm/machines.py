"""Whether there is a KVM to run a guest on, and small machines on it."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from devices.kvm.virtual_machine import VirtualMachine

MIB = 1 << 20


@contextmanager
def small_machine(vcpus: int = 1) -> Iterator[VirtualMachine]:
    """A guest of 8 MiB; the test is skipped where KVM is missing or refuses."""
    memory = np.frombuffer(mmap.mmap(-1, 8 * MIB), np.uint8)
    try:
        machine = VirtualMachine(memory, vcpus)
    except OSError as error:
        pytest.skip(f"no guest of KVM here: {error}")
    try:
        yield machine
    finally:
        machine.close()
