"""build: a large compile, clean-up, drop caches; what is left of its memory after each?

Every vCPU does one job after another.  A job reads its source into the page cache.  A compiler
grows at a pace, single page by single page, writes its assembly into the page cache as it does, and
exits; an assembler does so too, and writes an object file; the assembly is removed.  What a process
grew by is freed at once when it exits, in an order like the recorded one (`order_of_exit`); what is
in the cache stays, strewn among the rest.  When all jobs are done the guest idles,
the objects are removed (`make clean`), it idles, caches are dropped, and it idles again.  With
several `builds`, the next one begins where caches were dropped, and finds the sources cached.

The defaults are measured: g++ 12 -O2 -g and its assembler on a file of 11 lines that includes eight
headers of the standard library, on the reference machine.  The compiler grew to 289 MiB and the
assembler to 74 MiB, in 4.7 s of CPU time together, hence 78 MiB/s; 12 MiB of assembly, an object
of 4400 KiB.  Jobs differ: a job's processes are between a quarter and seven quarters of that size,
evenly drawn, and take as long as their growth.  Not modelled: headers, which all jobs share, and
huge pages for the compiler itself (`host.huge_pages` is about the host's).

After the compile benchmark of HyperAlloc (L. Wrenger et al., EuroSys 2025), which builds clang in a
guest of 16 GiB with 12 vCPUs, and the recorded compiles of gcc (`compile-*`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.vcpu import Vcpu
from emulator.workloads.build_kernels import Output, grow_batch
from emulator.workloads.kernels import alloc_batch, free_batch
from emulator.workloads.layout import BUILD_PROGRESS, HELD, OUTPUT
from emulator.workloads.workload import Outcome

# 6 ms of a process at the default pace: vCPUs take turns at the zone's free lists, and what each of
# them takes at a time should not be much more than a refill of a per-CPU list (63 pages).
_PAGES_AT_ONCE: Final = 128
# In the recorded compile, pages that follow each other as a compiler exits were allocated one after
# the other for 65 % (backwards nearly all), at most 7, 15 and 31 allocations apart for 81, 84 and
# 88 %.  A process that grows in 8 areas at once, and stays in one with that chance, and frees area
# by area from its end, has 65, 77, 84 and 93 %.
_SAME_AREA: Final = 0.65
_AREAS: Final = 8
_LARGEST: Final = 7 / 4  # of a process's size, and 1/4 the smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Parameters.  `jobs`: of each build, of all vCPUs, shared out evenly; `rate`: at which a
    process grows; the other sizes are those of a job's processes and files."""

    kind: ClassVar[str] = "build"
    jobs: int = 200
    compiler_bytes: int = 289 << 20
    assembler_bytes: int = 74 << 20
    rate_bytes_per_s: float = 78 << 20
    source_bytes: int = 64 << 10
    assembly_bytes: int = 12 << 20
    object_bytes: int = 4400 << 10
    idle_s: float = 10.0  # after the build, after cleaning up and after dropping caches
    builds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.jobs <= 100_000:
            raise ValueError(f"jobs: {self.jobs} is not one of 1 to 100000")
        if not 1 <= self.builds <= 1000:
            raise ValueError(f"builds: {self.builds} is not one of 1 to 1000")
        for name in ("compiler", "assembler", "source", "assembly", "object"):
            size = getattr(self, f"{name}_bytes")
            if size < PAGE_SIZE or size % PAGE_SIZE:
                raise ValueError(f"{name}: {size} bytes are not whole pages of 4KiB, one or more")
        if self.rate_bytes_per_s <= 0:
            raise ValueError("rate: must be above 0")
        if self.idle_s < 0:
            raise ValueError("idle: a time cannot be below 0")

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What the vCPUs count; ConfigError where the compilers and their files do not fit."""
        guest = scenario.guest
        process = int(max(self.compiler_bytes, self.assembler_bytes) * _LARGEST)
        files = self.jobs * (self.source_bytes + self.object_bytes)
        needed = guest.vcpus * (process + self.assembly_bytes) + files
        if needed > 0.95 * guest.memory_bytes:
            raise ConfigError(
                f"{scenario.where('workload')}: {guest.vcpus} processes of up to "
                f"{process >> 20}MiB and the files of {self.jobs} jobs may need {needed >> 20}MiB, "
                f"too much for {guest.memory_bytes >> 20}MiB; use --memory "
                f"{-(-int(needed / 0.9) >> 22) << 2}MiB, or fewer workload.jobs"
            )
        return {"progress": np.zeros(guest.vcpus, BUILD_PROGRESS)}

    def rehearsal(self) -> "Build":
        """Two jobs of a few pages."""
        small = 256 << 10
        return Build(
            jobs=2,
            compiler_bytes=small,
            assembler_bytes=small,
            assembly_bytes=small,
            object_bytes=small,
            idle_s=3.0,
        )

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Compile, idle, clean, idle, as often as there are builds; drop caches, idle."""
        jobs = len(range(vcpu.index, self.jobs, vcpu.nr_cpus))
        sources = _Files(vcpu, jobs, self.source_bytes)
        objects = _Files(vcpu, jobs, self.object_bytes)
        assembly = _Files(vcpu, 1, self.assembly_bytes)
        rng = np.random.default_rng(vcpu.random_state)
        for number in range(1, self.builds + 1):
            of = f" {number}" if self.builds > 1 else ""
            await vcpu.barrier()
            vcpu.phase(f"build{of}")
            sizes = rng.uniform(2 - _LARGEST, _LARGEST, jobs)
            files = (sources if number == 1 else None, assembly, objects)
            await self._build(vcpu, rng, sizes, files, arrays["progress"][vcpu.index])
            await vcpu.barrier()
            await self._idle(vcpu, f"built{of}")
            vcpu.phase(f"clean{of}")
            await objects.remove()
            await vcpu.barrier()
            await self._idle(vcpu, f"cleaned{of}")
        vcpu.phase("drop caches")
        await sources.remove()
        await vcpu.barrier()
        await self._idle(vcpu, "dropped")

    async def _build(
        self,
        vcpu: Vcpu,
        rng: np.random.Generator,
        sizes: npt.NDArray[np.float64],
        files: "tuple[_Files | None, _Files, _Files]",
        progress: Any,
    ) -> None:
        """This vCPU's jobs; `files`: sources unless they are cached, assembly, objects."""
        sources, assembly, objects = files
        progress["began_ns"] = round(vcpu.clock.now_s() * 1e9)
        for size in sizes:
            if sources is not None:
                await sources.write()
            done = await self._run_process(vcpu, rng, self.compiler_bytes * size, assembly.begin())
            done &= await self._run_process(vcpu, rng, self.assembler_bytes * size, objects.begin())
            await assembly.remove()
            progress["jobs"] += done
            progress["out_of_memory"] += not done
        progress["ended_ns"] = round(vcpu.clock.now_s() * 1e9)

    async def _run_process(
        self, vcpu: Vcpu, rng: np.random.Generator, size_bytes: float, output: Output
    ) -> bool:
        """One process's life; False: it ran out of memory and was ended."""
        pages = max(1, int(size_bytes) // PAGE_SIZE)
        held = np.zeros(pages, HELD)

        def grow(done: int, count: int) -> int:
            return int(grow_batch(vcpu.mm, vcpu.ram, vcpu.index, held, output, done, count))

        per_s = self.rate_bytes_per_s / PAGE_SIZE
        grown = await vcpu.work(grow, pages, at_once=_PAGES_AT_ONCE, per_s=per_s)
        freed = held[:grown][order_of_exit(rng, grown)]
        await vcpu.work(partial(_free, vcpu, freed), grown, at_once=max(1, grown))
        return grown == pages

    async def _idle(self, vcpu: Vcpu, name: str) -> None:
        vcpu.phase(name)
        await vcpu.sleep(self.idle_s)

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """How long the last build took: from the first compiler's start to the last one's exit."""
        progress = arrays["progress"]
        ended_ns = int(progress["ended_ns"].max())
        build_s = (ended_ns - int(progress["began_ns"].min())) / 1e9
        return {
            "build_s": build_s if ended_ns else None,
            "jobs": int(progress["jobs"].sum()),
            "out_of_memory": int(progress["out_of_memory"].sum()),
        }


def order_of_exit(rng: np.random.Generator, pages: int) -> npt.NDArray[np.intp]:
    """In which order an exiting process frees `pages` that it has allocated one after another."""
    moves = rng.random(pages) >= _SAME_AREA
    moves[:1] = True
    area = rng.integers(_AREAS, size=int(moves.sum()))[np.cumsum(moves) - 1]
    return np.argsort(area, kind="stable")[::-1]


class _Files:
    """The files of one vCPU's jobs in the page cache."""

    def __init__(self, vcpu: Vcpu, files: int, size_bytes: int) -> None:
        self._vcpu = vcpu
        self._held = np.zeros(max(1, files * (size_bytes // PAGE_SIZE)), HELD)
        self._last = np.zeros(1, OUTPUT)
        self._last["pages"] = size_bytes // PAGE_SIZE

    def begin(self) -> Output:
        """Another file, which a process writes."""
        self._last["first"] += self._last["written"]
        self._last["written"] = 0
        return Output(self._held, self._last)

    async def write(self) -> None:
        """Another file, written at once; less of it where memory runs out."""
        first, pages = int(self.begin().file[0]["first"]), int(self._last[0]["pages"])

        def batch(done: int, count: int) -> int:
            vcpu = self._vcpu
            return int(
                alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, self._held, first + done, count, 0)
            )

        self._last["written"] = await self._vcpu.work(batch, pages, at_once=pages)

    async def remove(self) -> None:
        """All of them."""
        self.begin()
        pages = int(self._last[0]["first"])
        await self._vcpu.work(partial(_free, self._vcpu, self._held), pages, at_once=_PAGES_AT_ONCE)
        self._last["first"] = 0


def _free(vcpu: Vcpu, held: npt.NDArray[Any], done: int, count: int) -> int:
    return int(free_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count))
