"""files: read and write files, some of them again and again, then drop the page cache.

As a machine that builds or serves: most requests go to a few files (the working set), some of which
are mapped, the others to all; processes hold memory of their own beside them and end; what was
written is synced; the cache stays, until it is dropped (`echo 1 > /proc/sys/vm/drop_caches`).  Only
then can its memory be given back.  The mapped files stay mapped to the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from emulator.config.scenario import Scenario
from emulator.guest.mm.layout import PAGE_SIZE
from emulator.guest.mm.page_cache_kernels import drop_slots, unmap_slots
from emulator.guest.mm.reclaim_kernels import (
    DEF_PRIORITY,
    any_zone_balanced,
    balance_unmapped,
    kswapd_pass,
    lower_boost,
)
from emulator.guest.vcpu import Vcpu
from emulator.workloads.files_kernels import files_batch
from emulator.workloads.kernels import alloc_batch, free_batch
from emulator.workloads.layout import FILE_PROGRESS, FILE_REQUESTS, HELD
from emulator.workloads.workload import Outcome, pace_per_s

_REQUESTS_AT_ONCE: Final = 16
_REQUESTS_MAX: Final = 1 << 62
_PAGES_AT_ONCE: Final = 2048
_SLOTS_AT_ONCE: Final = 4096
_ALL_FILES_BYTES_MAX: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Parameters; `rate` is that of each vCPU, without the time that it waits for the host."""

    kind: ClassVar[str] = "files"
    files: int = 96
    size_bytes: int = 16 << 20  # of each
    hot: float = 0.9  # of the requests go to the working set
    working_set: float = 0.15  # of the files
    mapped: float = 0.25  # of the working set's files, which are only read
    writes: float = 0.2  # of the requests to files that are not mapped
    request_bytes: int = 64 << 10
    anonymous: float = 0.4  # of the memory that is free at the start, while files are used
    duration_s: float = 20.0
    idle_s: float = 10.0  # with the cache, and again without
    drop: bool = True
    rate_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.files < 1:
            raise ValueError(f"files: {self.files} is not at least 1")
        if self.size_bytes < PAGE_SIZE or self.size_bytes % PAGE_SIZE:
            raise ValueError(f"size: {self.size_bytes} bytes are not whole pages of 4KiB")
        if self.files * self.size_bytes > _ALL_FILES_BYTES_MAX:
            raise ValueError(
                f"files: {self.files} of {self.size_bytes >> 20}MiB are more than 1TiB in all"
            )
        if not PAGE_SIZE <= self.request_bytes <= 1 << 20 or self.request_bytes % PAGE_SIZE:
            raise ValueError("request: must be whole pages of 4KiB, and 1MiB at most")
        for name in ("hot", "working_set", "mapped", "writes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not between 0 and 1")
        if not 0 <= self.anonymous <= 0.9:
            raise ValueError(f"anonymous: {self.anonymous} is not between 0 and 0.9")
        if self.duration_s <= 0 or self.idle_s < 0:
            raise ValueError("duration: must be above 0, and idle not below")

    def file_pages(self) -> Sequence[int]:
        """All of the same size."""
        return [self.size_bytes // PAGE_SIZE] * self.files

    def prepare(
        self, scenario: Scenario, say: Callable[[str], None]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What each vCPU counts."""
        return {"progress": np.zeros(scenario.guest.vcpus, FILE_PROGRESS)}

    def rehearsal(self) -> "Files":
        """A few files, and a pass of kswapd."""
        return _Rehearsal(files=8, size_bytes=1 << 20, anonymous=0.01, duration_s=0.01, idle_s=3.0)

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Use files, end the processes, sync, idle, drop, idle."""
        assert vcpu.files is not None
        free_pages = int(vcpu.mm.zones["free_pages"].sum())
        held = np.zeros(max(1, int(free_pages * self.anonymous / vcpu.nr_cpus)), HELD)
        wanted = len(held) if self.anonymous else 0
        await vcpu.barrier()
        vcpu.phase("start")
        fill = partial(_fill, vcpu, held)
        virtual = bool(vcpu.mm.kernel[0]["virtual"])
        pace = pace_per_s(None, PAGE_SIZE, virtual=virtual)
        filled = await vcpu.work(fill, wanted, at_once=_PAGES_AT_ONCE, per_s=pace)
        await vcpu.barrier()
        vcpu.phase("work")
        await vcpu.work(
            self._requests(vcpu, arrays["progress"]),
            _REQUESTS_MAX,
            at_once=_REQUESTS_AT_ONCE,
            per_s=pace_per_s(self.rate_bytes_per_s, self.request_bytes, virtual=virtual),
            until_s=vcpu.clock.now_s() + self.duration_s,
        )
        await vcpu.barrier()
        vcpu.phase("end")
        empty = partial(free_batch, vcpu.mm, vcpu.ram, vcpu.index, held)
        await vcpu.work(empty, filled, at_once=_PAGES_AT_ONCE)
        await vcpu.barrier()
        vcpu.phase("sync")
        await vcpu.files.sync()
        await vcpu.barrier()
        vcpu.phase("cached")
        await vcpu.sleep(self.idle_s)
        await vcpu.barrier()
        if self.drop:
            vcpu.phase("drop")
            if vcpu.index == 0:
                slots = len(vcpu.mm.cache.slots)
                await vcpu.work(partial(_drop, vcpu), slots, at_once=_SLOTS_AT_ONCE)
            await vcpu.barrier()
            vcpu.phase("dropped")
            await vcpu.sleep(self.idle_s)

    def _requests(self, vcpu: Vcpu, progress: npt.NDArray[Any]) -> Callable[[int, int], int]:
        state = np.zeros(1, FILE_REQUESTS)
        hot_files = max(1, round(self.files * self.working_set))
        state["random"] = vcpu.random_state
        state["request_pages"] = self.request_bytes // PAGE_SIZE
        state["files"] = self.files
        state["hot_files"] = hot_files
        state["mapped_files"] = round(hot_files * self.mapped)
        state["hot_of_1024"] = round(self.hot * 1024)
        state["writes_of_1024"] = round(self.writes * 1024)
        read_ahead = int(vcpu.mm.cache.control[0]["read_ahead_pages"])
        pfns = np.zeros(read_ahead + self.request_bytes // PAGE_SIZE, np.uint32)
        given = (vcpu.mm, vcpu.ram, vcpu.index, state, progress, pfns)

        def batch(done: int, count: int) -> int:
            return int(files_batch(*given, count))

        return batch

    def figures(
        self, outcome: Outcome, arrays: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, float | int | str | None]:
        """How much was read and written by the workload, from the cache or not."""
        progress = arrays["progress"]
        return {
            "files_bytes": self.files * self.size_bytes,
            "read_bytes": int(progress["read_pages"].sum()) * PAGE_SIZE,
            "written_bytes": int(progress["written_pages"].sum()) * PAGE_SIZE,
        }


def _fill(vcpu: Vcpu, held: npt.NDArray[Any], done: int, count: int) -> int:
    return int(alloc_batch(vcpu.mm, vcpu.ram, vcpu.index, held, done, count, 0))


def _drop(vcpu: Vcpu, done: int, count: int) -> int:
    drop_slots(vcpu.mm, vcpu.index, done, count)
    return count


class _Rehearsal(Files):
    """Besides, what kswapd would call if memory were short, and what ends a mapping."""

    async def run(self, vcpu: Vcpu, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        await super().run(vcpu, arrays)
        mm, kernel = vcpu.mm, vcpu.nr_cpus
        any_zone_balanced(mm)
        balance_unmapped(mm, kernel)
        kswapd_pass(mm, kernel, DEF_PRIORITY)
        lower_boost(mm, 0, kernel, 0)
        unmap_slots(mm, vcpu.index, 0, len(mm.cache.slots))
