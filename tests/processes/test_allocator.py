"""The allocator under real processes: nothing is lost, whoever runs beside, or dies."""

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from devices.memory.jit import interpreted
from emulator.guest.mm.layout import ALLOCATED, BUDDY, ISOLATED, PCP
from emulator.guest.mm.lock_kernels import acquire_zone
from tests.processes.vcpus import Vcpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(interpreted(), reason="interpreted kernels have no atomics"),
]

PAGES = 6144


@pytest.fixture
def vcpus(request: pytest.FixtureRequest) -> Iterator[Vcpus]:
    made = Vcpus(cpus=getattr(request, "param", 4))
    yield made
    made.close()


def all_came_back(vcpus: Vcpus) -> bool:
    """Every page is free, and no content was lost; fails where the lists are not sound."""
    counts = vcpus.guest.counts()
    assert vcpus.mm.actors["violations"].sum() == 0
    assert vcpus.mm.zones["lock"].tolist() == [0, 0]
    return int(counts[BUDDY]) == PAGES


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8], indirect=True)
def test_nothing_is_lost(vcpus: Vcpus) -> None:
    cpus = range(vcpus.guest.cpus)
    level = 4000 // len(cpus)
    for cpu in cpus:
        vcpus.start(cpu, lambda cpu=cpu: vcpus.churn(cpu, rounds=800 // len(cpus), level=level))  # type: ignore[misc]
    assert [vcpus.wait(cpu) for cpu in cpus] == [0] * len(cpus)
    assert all_came_back(vcpus)
    actors = vcpus.mm.actors[: len(cpus)]
    assert (actors["pages_checked"] > 10_000).all()
    assert actors["held_pages"].tolist() == [0] * len(cpus)
    # Every vCPU took the locks thousands of times; whoever is alone never had to wait.
    assert (actors["lock_hold_ns"].sum(axis=1) > 1000).all()
    assert len(cpus) > 1 or actors["lock_wait_ns"].sum() == 0


@pytest.mark.parametrize("vcpus", [2, 4], indirect=True)
def test_no_page_in_use_is_discarded(vcpus: Vcpus) -> None:
    cpus, kernel = range(vcpus.guest.cpus), vcpus.guest.cpus
    vcpus.start(kernel, partial(vcpus.report, kernel))
    for cpu in cpus:
        vcpus.start(cpu, partial(vcpus.churn, cpu, rounds=100, level=900, reports=200))
    assert [vcpus.wait(cpu) for cpu in cpus] == [0] * len(cpus)
    vcpus.stop_reporting(kernel)
    assert vcpus.wait(kernel) == 0
    assert all_came_back(vcpus)
    assert vcpus.guest.counts()[ISOLATED] == 0
    # Content was there to be lost, and was lost: of pages that nobody used.
    assert vcpus.mm.actors[kernel]["operations"] >= 200
    assert vcpus.mm.actors[kernel]["pages_touched"] > 1000


@pytest.mark.parametrize("z", [0, 1])
def test_who_dies_with_a_lock_is_survived(vcpus: Vcpus, z: int) -> None:
    def die_with_the_lock() -> None:
        vcpus.churn(0, rounds=3, level=900)
        acquire_zone(vcpus.mm, z, 0)
        vcpus.mm.zones[z]["free_pages"] = -1  # Half done with something.
        os.kill(os.getpid(), signal.SIGKILL)

    for cpu in (1, 2, 3):
        vcpus.start(cpu, partial(vcpus.churn, cpu, rounds=60, level=900))
    vcpus.start(0, die_with_the_lock)
    assert vcpus.wait(0) == -signal.SIGKILL
    assert vcpus.mm.zones[z]["lock"] & 0xFFFF == 1
    vcpus.bury(0)
    assert [vcpus.wait(cpu) for cpu in (1, 2, 3)] == [0, 0, 0]
    assert all_came_back(vcpus)


def test_who_is_killed_at_any_moment_is_survived(vcpus: Vcpus) -> None:
    """Thirty deaths of three vCPUs, the fourth goes on; the hinting task isolates all the while."""
    chance = random.Random(1)
    vcpus.start(4, partial(vcpus.report, 4))
    vcpus.start(3, partial(vcpus.churn, 3, rounds=400, level=900))
    pages = 0
    for death in range(30):
        cpu = death % 3
        vcpus.start(cpu, partial(vcpus.churn, cpu, rounds=10**9, level=900, seed=death))
        time.sleep(chance.uniform(0.001, 0.03))
        vcpus.kill(cpu)
        assert vcpus.wait(cpu) == -signal.SIGKILL
        pages += vcpus.bury(cpu)
    assert vcpus.wait(3) == 0
    vcpus.stop_reporting(4)
    assert vcpus.wait(4) == 0
    assert all_came_back(vcpus)
    assert pages > 1000
    assert vcpus.guest.counts()[[ALLOCATED, PCP, ISOLATED]].tolist() == [0, 0, 0]
