"""kernbench: make -j on a tree of files that was read once before, through the page cache.

As C. Kolivas's kernbench does: all of the source tree is read, then compiled by four jobs a CPU at
a time.  A job maps the compiler, reads its source and the headers that it includes, grows at a
pace, writes an object and exits: what it grew by is free at once, what it read and wrote stays in
the cache, and the objects are written back behind it.  When all are done, one vCPU reads the
objects again and writes the image (ld), and all is synced.  The jobs of one vCPU take turns, 2 MiB
of growth each.  A job that finds no memory is ended, and counted.

Measured: gcc 12 -O2 on a file of C with 244 headers (1167 KiB), on the reference machine.  The
compiler grew by 28 MiB in 0.70 s of CPU time, 40 MiB/s, beside 25 MiB of its own pages that were
mapped; an object of 77 KiB.  Jobs differ: between a quarter and seven quarters of that growth,
evenly drawn.  Chosen: how large the tree is, and of that the headers, half of what a job includes
being the same for all and the rest drawn from all of them.

Not modelled: what make, the shell and the assembler do; `make clean`; directories and what else
takes no page of a file.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.mm.page_cache_kernels import unmap_slots
from emulator.guest.mm.reclaim_kernels import (
    DEF_PRIORITY,
    any_zone_balanced,
    balance_unmapped,
    kswapd_pass,
    lower_boost,
)
from emulator.guest.vcpu import Vcpu
from emulator.workloads.build_kernels import Output, grow_batch
from emulator.workloads.kernbench_kernels import read_files, write_file
from emulator.workloads.kernels import free_batch
from emulator.workloads.layout import BUILD_PROGRESS, HELD, OUTPUT
from emulator.workloads.workload import Outcome

_PAGES_AT_ONCE: Final = 512  # a turn of a job: 50 ms at the default pace
_REQUEST_PAGES: Final = 32
_FILE_BYTES: Final = 64 << 10  # a header, and a piece of what nobody compiles or links
_LARGEST: Final = 7 / 4  # of a job's growth, and 1/4 the smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernbench:
    """Parameters.  `jobs`: of all vCPUs, shared out evenly, `parallel` of them at a time; `rate`:
    at which a vCPU's jobs grow; `tree`: with all sources and headers, of which a job reads `source`
    and `included`."""

    kind: ClassVar[str] = "kernbench"
    compared: ClassVar[Mapping[str, str]] = {"build_s": "less"}
    jobs: int = 640
    parallel: int = 8
    process_bytes: int = 28 << 20
    rate_bytes_per_s: float = 40 << 20
    tree_bytes: int = 416 << 20
    headers_bytes: int = 16 << 20
    included_bytes: int = 1152 << 10
    source_bytes: int = 64 << 10
    object_bytes: int = 76 << 10
    compiler_bytes: int = 25 << 20
    read_bytes_per_s: float = 256 << 20  # by one vCPU, and as fast it writes

    def __post_init__(self) -> None:
        if not 1 <= self.jobs <= 100_000:
            raise ValueError(f"jobs: {self.jobs} is not one of 1 to 100000")
        if self.parallel < 1:
            raise ValueError(f"parallel: {self.parallel} is not at least 1")
        for name in ("process", "source", "object", "compiler"):
            size = getattr(self, f"{name}_bytes")
            if size < PAGE_SIZE or size % PAGE_SIZE:
                raise ValueError(f"{name}: {size} bytes are not whole pages of 4KiB, one or more")
        if not _FILE_BYTES <= self.included_bytes <= self.headers_bytes:
            raise ValueError("included: must be 64KiB or more, and no more than headers")
        if self.headers_bytes + self.jobs * self.source_bytes > self.tree_bytes:
            raise ValueError(
                f"tree: {self.tree_bytes >> 20}MiB do not hold the headers and the sources of "
                f"{self.jobs} jobs"
            )
        if self.rate_bytes_per_s <= 0 or self.read_bytes_per_s <= 0:
            raise ValueError("rate: must be above 0, and so must read")

    @property
    def _headers(self) -> int:
        return self.headers_bytes // _FILE_BYTES

    @property
    def _pieces(self) -> int:
        """Files of the tree that no job reads."""
        rest = self.tree_bytes - self.headers_bytes - self.jobs * self.source_bytes
        return rest // _FILE_BYTES

    def file_pages(self) -> Sequence[int]:
        """The tree: headers, sources, the rest; then objects, the image, and the compiler."""
        objects = self.jobs * self.object_bytes // PAGE_SIZE
        return [
            *[_FILE_BYTES // PAGE_SIZE] * self._headers,
            *[self.source_bytes // PAGE_SIZE] * self.jobs,
            *[_FILE_BYTES // PAGE_SIZE] * self._pieces,
            *[self.object_bytes // PAGE_SIZE] * self.jobs,
            objects,
            self.compiler_bytes // PAGE_SIZE,
        ]

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What the vCPUs count; ConfigError where the jobs do not fit."""
        guest = scenario.guest
        needed = max(self.parallel, guest.vcpus) * int(self.process_bytes * _LARGEST)
        needed += self.compiler_bytes
        if needed > 0.9 * guest.memory_bytes:
            raise ConfigError(
                f"{scenario.where('workload')}: {self.parallel} jobs at a time may need "
                f"{needed >> 20}MiB, too much for {guest.memory_bytes >> 20}MiB; use --memory "
                f"{-(-int(needed / 0.85) >> 22) << 2}MiB, or a smaller workload.parallel"
            )
        return {"progress": np.zeros(guest.vcpus, BUILD_PROGRESS)}

    def rehearsal(self) -> "Kernbench":
        """Two jobs of a few pages, and a pass of kswapd."""
        small = 256 << 10
        return _Rehearsal(
            jobs=2,
            process_bytes=small,
            tree_bytes=4 * small,
            headers_bytes=small,
            included_bytes=small,
            compiler_bytes=small,
        )

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Read the tree, compile, link, sync."""
        assert vcpu.files is not None
        progress = arrays["progress"][vcpu.index]
        files = _Files(vcpu, self.read_bytes_per_s)
        tree = self._headers + self.jobs + self._pieces
        await vcpu.barrier()
        vcpu.phase("cache")
        await files.read(np.arange(vcpu.index, tree, vcpu.nr_cpus))
        await vcpu.barrier()
        vcpu.phase("build")
        progress["began_ns"] = round(vcpu.clock.now_s() * 1e9)
        await self._compile(vcpu, files, progress)
        await vcpu.barrier()
        vcpu.phase("link")
        if vcpu.index == 0:
            await files.read(tree + np.arange(self.jobs))
            await files.write(tree + self.jobs)
            unmap_slots(vcpu.mm, vcpu.index, 0, len(vcpu.mm.cache.slots))
        await vcpu.barrier()
        progress["ended_ns"] = round(vcpu.clock.now_s() * 1e9)
        vcpu.phase("sync")
        await vcpu.files.sync()
        await vcpu.barrier()

    async def _compile(self, vcpu: Vcpu, files: "_Files", progress: Any) -> None:
        """This vCPU's jobs, a few at a time, in turns."""
        random = np.random.default_rng(vcpu.random_state)
        waiting = deque(range(vcpu.index, self.jobs, vcpu.nr_cpus))
        running: deque[_Process] = deque()
        at_once = -(-self.parallel // vcpu.nr_cpus)
        while waiting or running:
            if waiting and len(running) < at_once:
                job, size = waiting.popleft(), random.uniform(2 - _LARGEST, _LARGEST)
                process = _Process(vcpu, job, self.process_bytes * size)
                process.failed = not await self._begin(files, job, random)
                running.append(process)
                continue
            process = running.popleft()
            if not process.failed and await process.grow(self.rate_bytes_per_s):
                running.append(process)
                continue
            if not process.failed:
                job_object = self._headers + self.jobs + self._pieces + process.job
                process.failed = not await files.write(job_object)
            await process.exit()
            progress["jobs"] += not process.failed
            progress["out_of_memory"] += process.failed

    async def _begin(self, files: "_Files", job: int, random: np.random.Generator) -> bool:
        """Map the compiler, read the source and what it includes; False: out of memory."""
        compiler = len(self.file_pages()) - 1
        if not await files.read(np.array([compiler]), mapped=True):
            return False
        included = self.included_bytes // _FILE_BYTES
        common = np.arange(included // 2)
        others = random.integers(0, self._headers, included - len(common))
        wanted = np.concatenate([[self._headers + job], common, others])
        return await files.read(wanted)

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """How long the build took: from the first compiler's start to the image."""
        progress = arrays["progress"]
        ended_ns = int(progress["ended_ns"].max())
        build_s = (ended_ns - int(progress["began_ns"].min())) / 1e9
        return {
            "build_s": build_s if ended_ns else None,
            "jobs": int(progress["jobs"].sum()),
            "out_of_memory": int(progress["out_of_memory"].sum()),
        }


class _Process:
    """A compiler at work."""

    def __init__(self, vcpu: Vcpu, job: int, size_bytes: float) -> None:
        self.job: Final = job
        self.failed = False
        self._vcpu = vcpu
        self._held = np.zeros(max(1, int(size_bytes) // PAGE_SIZE), HELD)
        # Its object goes through the page cache, when it has grown.
        self._output = Output(self._held, np.zeros(1, OUTPUT))
        self._grown = 0

    async def grow(self, rate_bytes_per_s: float) -> bool:
        """One turn; whether it will go on."""
        first = self._grown
        wanted = min(_PAGES_AT_ONCE, len(self._held) - first)

        def batch(done: int, count: int) -> int:
            vcpu = self._vcpu
            held, output = self._held, self._output
            place = (first + done, count)
            return int(grow_batch(vcpu.mm, vcpu.ram, vcpu.index, held, output, *place))

        per_s = rate_bytes_per_s / PAGE_SIZE
        got = await self._vcpu.work(batch, wanted, at_once=wanted, per_s=per_s)
        self._grown += got
        self.failed = got < wanted
        return not self.failed and self._grown < len(self._held)

    async def exit(self) -> None:
        """All of its memory is free at once."""
        vcpu = self._vcpu

        def batch(done: int, count: int) -> int:
            return int(free_batch(vcpu.mm, vcpu.ram, vcpu.index, self._held, done, count))

        await vcpu.work(batch, self._grown, at_once=max(1, self._grown))


class _Files:
    """How one vCPU reads and writes files: at a pace, but for what is only mapped."""

    def __init__(self, vcpu: Vcpu, rate_bytes_per_s: float) -> None:
        self._vcpu = vcpu
        self._files_per_s = rate_bytes_per_s / _FILE_BYTES
        self._pfns = np.zeros(2 * _REQUEST_PAGES, np.uint32)

    async def read(self, wanted: npt.NDArray[Any], *, mapped: bool = False) -> bool:
        """Whole files by their numbers; False: memory ran out."""
        vcpu = self._vcpu
        numbers = wanted.astype(np.int64)

        def batch(done: int, count: int) -> int:
            given = (vcpu.mm, vcpu.ram, vcpu.index, numbers, done, count, mapped, self._pfns)
            return int(read_files(*given))

        pace = None if mapped else self._files_per_s
        return await vcpu.work(batch, len(numbers), at_once=16, per_s=pace) == len(numbers)

    async def write(self, file: int) -> bool:
        """A whole file; False: memory ran out."""
        vcpu = self._vcpu
        pages = int(vcpu.mm.cache.files[file]["pages"])

        def batch(done: int, count: int) -> int:
            given = (vcpu.mm, vcpu.ram, vcpu.index, file, done, count, self._pfns)
            return int(write_file(*given))

        pace = self._files_per_s * _FILE_BYTES / PAGE_SIZE
        return await vcpu.work(batch, pages, at_once=256, per_s=pace) == pages


class _Rehearsal(Kernbench):
    """Besides, what kswapd would call if memory were short."""

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        await super().run(vcpu, arrays)
        mm, kernel = vcpu.mm, vcpu.nr_cpus
        any_zone_balanced(mm)
        balance_unmapped(mm, kernel)
        kswapd_pass(mm, kernel, DEF_PRIORITY)
        lower_boost(mm, 0, kernel, 0)
