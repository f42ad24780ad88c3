"""A guest of KVM runs its programs, counts, and ends; skipped where there is no KVM."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from devices.kvm.programs import IDENTIFY, NOTIFY, TOUCH, WATCH
from devices.kvm.virtual_machine import MEMORY_AT, VirtualMachine
from emulator.config.scenario import ROOT
from tests.devices.kvm.machines import MIB, small_machine

PAGE = 4096
LONG_TICKS = 1 << 62

# Runs until it is killed, for the guest's loop has a day's time.
ENDLESS = """
import threading, time
from tests.devices.kvm.machines import small_machine
from devices.kvm.programs import WATCH
with small_machine() as machine:
    vcpu = machine.vcpus[0]
    work = lambda: vcpu.run(WATCH, r8=1 << 62, r9=1 << 62)
    threading.Thread(target=work, daemon=True).start()
    while not vcpu.words["rounds"][0]:
        time.sleep(0.01)
    print("running", flush=True)
    time.sleep(100)
"""


def test_the_guest_writes_to_every_page_it_is_told_to() -> None:
    with small_machine() as machine:
        vcpu = machine.vcpus[0]
        assert vcpu.run(TOUCH, rsi=MEMORY_AT, r8=MEMORY_AT + 100 * PAGE) == 0
        words = machine.memory.view(np.uint64)[MEMORY_AT // 8 :: PAGE // 8]
        assert words[:100].tolist() == [MEMORY_AT + PAGE * page for page in range(100)]
        assert not words[100:].any()
        assert vcpu.words["rounds"][0] == 100
        assert vcpu.statistics.value("exits") > 0
        with pytest.raises(OSError, match="does not count no such counter"):
            vcpu.statistics.value("no such counter")


def test_a_watch_ends_by_itself_and_when_it_is_told_to() -> None:
    with small_machine() as machine:
        vcpu = machine.vcpus[0]
        vcpu.run(WATCH, r8=int(vcpu.ticks_per_s / 1000), r9=LONG_TICKS)
        assert vcpu.words["rounds"][0] > 0
        assert vcpu.words["gaps"][0] == 0
        vcpu.run(WATCH, r8=int(vcpu.ticks_per_s / 1000), r9=1)
        assert vcpu.words["gaps"][0] == vcpu.words["rounds"][0]
        assert vcpu.words["gap_ticks"][0] > vcpu.words["gaps"][0]

        watch = threading.Thread(target=lambda: vcpu.run(WATCH, r8=LONG_TICKS, r9=LONG_TICKS))
        watch.start()
        while watch.is_alive():
            vcpu.words["stop"] = 1
            watch.join(0.01)


def test_two_vcpus_count_each_for_itself() -> None:
    with small_machine(vcpus=2) as machine:

        def count(number: int) -> None:
            machine.vcpus[number].run(IDENTIFY, r8=100 * (number + 1))

        threads = [threading.Thread(target=count, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [int(vcpu.words["rounds"][0]) for vcpu in machine.vcpus] == [100, 200]


def test_notifications_come_to_us_or_to_an_eventfd() -> None:
    with small_machine() as machine:
        assert machine.vcpus[0].run(NOTIFY, r8=7) == 7
        eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            machine.notify_eventfd(eventfd)
            assert machine.vcpus[0].run(NOTIFY, r8=7) == 0
            assert os.eventfd_read(eventfd) == 7
        finally:
            os.close(eventfd)


def test_what_a_guest_has_no_memory_for_stops_it_with_a_reason() -> None:
    with small_machine() as machine:
        beyond = len(machine.memory)
        with pytest.raises(RuntimeError, match="exit reason"):
            machine.vcpus[0].run(TOUCH, rsi=beyond, r8=beyond + PAGE)


def test_what_is_no_kvm_is_refused() -> None:
    memory = np.zeros(8 * MIB, np.uint8)
    for device in ("/dev/null", "/dev/no-such-device"):
        with pytest.raises(OSError):
            VirtualMachine(memory, 1, device=device)


@pytest.mark.slow
def test_nothing_is_left_of_a_guest_whose_process_is_killed() -> None:
    with small_machine():
        pass
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "running\n"
        process.kill()
        # It is over when all of its threads are, the one that is within the guest too.
        assert process.wait(10) == -signal.SIGKILL
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
