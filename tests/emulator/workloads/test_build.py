"""A compile as a workload: what its jobs hold, and what stays after each of its ends."""

import re

import msgspec
import pytest

from emulator.config.guest import ZoneConfig
from emulator.config.scenario import Scenario, load_scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.workloads.build import Build
from emulator.workloads.registry import load_workload
from tests.support.runs import simulate, small

KIB = 1 << 10


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"jobs": 0}, "jobs: 0 is not one of 1 to 100000"),
        ({"compiler": "1000"}, "compiler: 1000 bytes are not whole pages of 4KiB, one or more"),
        ({"object": "0"}, "object: 0 bytes are not whole pages of 4KiB, one or more"),
        ({"builds": 0}, "builds: 0 is not one of 1 to 1000"),
        ({"rate": "0"}, "rate: must be above 0"),
        ({"size": "4KiB"}, "size: unknown key"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_workload("build", parameters, where="workload")


def test_a_guest_that_is_too_small_is_refused_with_what_would_do() -> None:
    scenario = load_scenario("build", ["guest.memory=1GiB"])
    workload = Build(jobs=600)
    with pytest.raises(ConfigError, match=r"the files of 600 jobs may need \d+MiB") as raised:
        workload.prepare(scenario, lambda text: None)
    found = re.search(r"--memory (\d+MiB)", str(raised.value))
    assert found is not None
    enough = load_scenario("build", [f"guest.memory={found[1]}"])
    assert len(workload.prepare(enough, lambda text: None)["progress"]) == 3


def test_files_stay_until_they_are_removed_and_processes_do_not() -> None:
    summary = simulate(small("build", "mechanism={name='off'}", "guest.vcpus=2")).summary
    resident = {phase.name: phase.resident_bytes_end or 0 for phase in summary.phases}
    assert list(resident) == ["build", "built", "clean", "cleaned", "drop caches", "dropped"]
    files = 6 * 2  # Sources and objects of six jobs, each 64 KiB.
    operations = {phase.name: phase.operations or 0 for phase in summary.phases}
    assert operations["clean"] == operations["drop caches"] == files // 2 * (64 * KIB // PAGE_SIZE)
    assert summary.workload["jobs"] == 6
    assert summary.workload["out_of_memory"] == 0
    # Two operations a page: each was allocated and freed.
    assert summary.vcpus.operations == 2 * (summary.oracle.pages_checked or 0)


def test_the_next_build_writes_its_objects_anew_and_finds_its_sources_cached() -> None:
    scenario = small("build", "mechanism={name='off'}", "guest.vcpus=1", "workload.builds=2")
    summary = simulate(scenario).summary
    operations = {phase.name: phase.operations or 0 for phase in summary.phases}
    named = [f"{name} {number}" for number in (1, 2) for name in ("build", "built", "clean")]
    assert [name for name in operations if "cleaned" not in name] == [
        *named,
        "drop caches",
        "dropped",
    ]
    six_files = 6 * (64 * KIB // PAGE_SIZE)
    assert operations["clean 1"] == operations["clean 2"] == six_files
    assert operations["drop caches"] == six_files
    assert summary.workload["jobs"] == 12
    assert summary.vcpus.operations == 2 * (summary.oracle.pages_checked or 0)


def test_a_build_takes_what_its_processes_take_to_grow() -> None:
    summary = simulate(small("build", "mechanism={name='off'}", "guest.vcpus=1")).summary
    pages = (summary.vcpus.operations or 0) // 2
    files = 6 * (64 + 64 + 256) * KIB // PAGE_SIZE
    rate = (16 << 20) / PAGE_SIZE
    assert summary.workload["build_s"] == pytest.approx((pages - files) / rate + 0.001, rel=1e-3)
    # Between a quarter and seven quarters of what six jobs of average size would be.
    assert 0.25 < (pages - files) / (6 * 1024) < 1.75


def test_a_compiler_that_finds_no_memory_is_ended_and_counted() -> None:
    hog = simulate(small("build", "mechanism={name='off'}", "guest.memory=24MiB")).summary
    assert hog.workload["out_of_memory"] == 0
    scenario = small("build", "mechanism={name='off'}", "guest.memory=24MiB", "guest.vcpus=1")
    tight = simulate(_with_reserve(scenario)).summary
    assert tight.workload["out_of_memory"] > 0
    assert tight.workload["out_of_memory"] + tight.workload["jobs"] == 6
    assert tight.oracle.violations == 0


def _with_reserve(scenario: Scenario) -> Scenario:
    """Of the guest's 24 MiB, its kernel holds 20."""
    zone = ZoneConfig(name="NORMAL", memory_bytes=24 << 20, reserved_bytes=20 << 20)
    return msgspec.structs.replace(
        scenario, guest=msgspec.structs.replace(scenario.guest, zones=(zone,))
    )
