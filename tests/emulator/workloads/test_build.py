"""A compile as a workload: what its jobs hold, and what stays after each of its ends."""

import re

import msgspec
import numpy as np
import pytest

from emulator.config.guest import ZoneConfig
from emulator.config.scenario import Scenario, load_scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.workloads.build import Build, order_of_exit
from emulator.workloads.build_kernels import Output, grow_batch
from emulator.workloads.layout import HELD, OUTPUT
from emulator.workloads.registry import load_workload
from tests.support.guest import Guest, ZoneOf
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


def test_a_process_is_freed_backwards_and_in_areas_as_the_recorded_ones() -> None:
    order = order_of_exit(np.random.default_rng(1), 40_000)
    assert sorted(order) == list(range(40_000))
    steps = np.diff(order)
    apart = np.abs(steps)
    # In the recording 60 % are one back; 65, 81, 84 and 88 % are at most 1, 7, 15 and 31 apart.
    assert np.mean(steps == -1) == pytest.approx(0.65, abs=0.05)
    for most, recorded in ((1, 0.65), (7, 0.81), (15, 0.84), (31, 0.88)):
        assert np.mean(apart <= most) == pytest.approx(recorded, abs=0.06)


def test_a_process_of_no_page_or_one_is_freed_too() -> None:
    rng = np.random.default_rng(1)
    assert order_of_exit(rng, 0).tolist() == []
    assert order_of_exit(rng, 1).tolist() == [0]


def test_a_file_that_a_process_writes_lies_strewn_among_its_pages() -> None:
    guest = Guest(ZoneOf(pages=1024), cpus=1, pageblock_order=4)
    held, written = np.zeros(100, HELD), np.zeros(12, HELD)
    file = np.zeros(1, OUTPUT)
    file["first"], file["pages"] = 2, 10
    output = Output(written, file)
    assert grow_batch(guest.mm, guest.ram, 0, held, output, 0, 64) == 64
    # A tenth of a page for each page, three at a time: after the 30th and the 60th.
    assert file[0]["written"] == 6
    assert grow_batch(guest.mm, guest.ram, 0, held, output, 64, 36) == 36
    assert file[0]["written"] == 10  # All of it, with the last page.
    assert (written["pfn"][:2] == 0).all()
    pages = [*held["pfn"].tolist(), *written["pfn"][2:].tolist()]
    assert len(set(pages)) == 110
