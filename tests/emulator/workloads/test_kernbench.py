"""A build from files: what it reads, writes and holds, and what becomes of its jobs."""

import re

import msgspec
import numpy as np
import pytest

from emulator.config.guest import ZoneConfig
from emulator.config.scenario import Scenario, load_scenario
from emulator.errors import ConfigError
from emulator.workloads.kernbench import Kernbench
from emulator.workloads.registry import load_workload
from tests.support.runs import simulate

KIB, MIB = 1 << 10, 1 << 20
SMALL = (
    'guest.memory="64MiB"',
    'mechanism={name="off"}',
    'workload.process="2MiB"',
    "workload.jobs=6",
    "workload.parallel=4",
    'workload.tree="8MiB"',
    'workload.headers="1MiB"',
    'workload.included="256KiB"',
    'workload.compiler="1MiB"',
    "expect=[]",
)


def small(*changes: str) -> Scenario:
    manager = 'balloon.manager={name="none"}'
    return load_scenario("kernbench_wave", [*SMALL, manager, *changes])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"jobs": 0}, "jobs: 0 is not one of 1 to 100000"),
        ({"parallel": 0}, "parallel: 0 is not at least 1"),
        ({"object": "1000"}, "object: 1000 bytes are not whole pages of 4KiB, one or more"),
        ({"included": "32MiB"}, "included: must be 64KiB or more, and no more than headers"),
        ({"tree": "32MiB"}, "tree: 32MiB do not hold the headers and the sources of 640 jobs"),
        ({"rate": "0"}, "rate: must be above 0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_workload("kernbench", parameters, where="workload")


def test_a_guest_that_is_too_small_is_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError, match=r"8 jobs at a time may need 417MiB, too much") as raised:
        Kernbench().prepare(load_scenario("kernbench_wave", ["guest.memory=400MiB"]), print)
    found = re.search(r"--memory (\d+MiB)", str(raised.value))
    assert found is not None
    enough = load_scenario("kernbench_wave", [f"guest.memory={found[1]}"])
    assert len(Kernbench().prepare(enough, print)["progress"]) == 2


def test_files_are_the_tree_the_objects_the_image_and_the_compiler() -> None:
    pages = Kernbench().file_pages()
    objects, image, compiler = pages[-642:-2], pages[-2], pages[-1]
    assert sum(pages[:-642]) == 416 * MIB // 4096
    assert (set(objects), image) == ({76 * KIB // 4096}, sum(objects))
    assert compiler == 25 * MIB // 4096


def test_everything_is_read_from_the_host_once_and_everything_written_comes_to_its_disk() -> None:
    summary = simulate(small()).summary
    cache = summary.page_cache
    image = 6 * 76 * KIB
    assert cache.disk_read_bytes == 8 * MIB + MIB  # The tree and the compiler.
    assert cache.host_read_bytes == cache.disk_read_bytes  # All of it stays in the guest's cache.
    assert cache.bytes_end == cache.disk_read_bytes + 2 * image
    assert (cache.written_bytes, cache.dirty_bytes_end) == (2 * image, 0)
    assert cache.duplicate_bytes_end == cache.host_cache_bytes_end == cache.bytes_end
    assert (cache.mapped_bytes_end, summary.workload["jobs"]) == (0, 6)
    # A page from the host's cache in 1907 ns, from its disk in 7812 ns more.
    assert cache.read_wait_s == pytest.approx(9 * MIB // 4096 * (1907 + 7812) * 1e-9)
    # What processes grew by has been freed.
    assert summary.vcpus.failed_allocations == 0
    assert summary.stranded.page_cache_bytes == cache.bytes_end


def test_a_build_takes_what_its_jobs_take_to_grow_and_to_read() -> None:
    """One vCPU: 40 MiB/s of growth, 256 MiB/s of reading and writing; and the host's reads."""
    summary = simulate(small("guest.vcpus=1", "cost={}")).summary
    seed = np.random.default_rng(int(np.random.SeedSequence([1, 0]).generate_state(1)[0]) + 1)
    grown = 0
    for _ in range(6):
        grown += int(2 * MIB * seed.uniform(0.25, 1.75)) // 4096 * 4096
        seed.integers(0, 16, 2)
    read = 6 * (64 + 256) * KIB + 6 * 76 * KIB  # Sources, headers; objects, to link them.
    written = 2 * 6 * 76 * KIB
    paced_s = grown / (40 * MIB) + (read + written) / (256 * MIB)
    # The compiler is read from the disk meanwhile; faults have their price, too.
    assert summary.workload["build_s"] == pytest.approx(paced_s, rel=0.12)
    assert summary.workload["build_s"] > paced_s


def test_jobs_take_turns_and_hold_memory_together() -> None:
    together, alone = (
        simulate(small("guest.vcpus=1", f"workload.parallel={n}", 'run.sample="10ms"'))
        for n in (4, 1)
    )
    used = [
        max(
            64 * MIB - (row.guest_free_bytes or 0) - (row.page_cache_bytes or 0) for row in run.rows
        )
        for run in (together, alone)
    ]
    assert used[0] > used[1] + 2 * MIB


def test_a_job_that_finds_no_memory_is_ended_and_counted() -> None:
    """Of 64 MiB the guest's kernel holds 57; files can be reclaimed, four compilers not held."""
    scenario = small('workload.process="4MiB"')
    zone = ZoneConfig(name="NORMAL", memory_bytes=64 << 20, reserved_bytes=57 << 20)
    tight = msgspec.structs.replace(
        scenario, guest=msgspec.structs.replace(scenario.guest, zones=(zone,))
    )
    summary = simulate(tight).summary
    assert summary.workload["out_of_memory"] > 0
    assert summary.workload["out_of_memory"] + summary.workload["jobs"] == 6
    assert summary.oracle.violations == 0


def test_a_run_repeats_to_the_byte() -> None:
    first, second = simulate(small()), simulate(small())
    assert first.rows == second.rows
    assert first.summary.page_cache == second.summary.page_cache
