"""Bringing a guest up: zones, watermarks and per-CPU limits as Linux 6.6 computes them.

Sources: mm/page_alloc.c (calculate_min_free_kbytes, __setup_per_zone_wmarks, zone_batchsize,
zone_highsize, setup_per_zone_lowmem_reserve), mm/khugepaged.c (set_recommended_min_free_kbytes).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from devices.memory.mapping import HUGE_PAGE_SIZE, populate_huge
from devices.memory.ram import RamView
from emulator.guest.mm.deferred_kernels import first_deferred, init_next_section
from emulator.guest.mm.init_kernels import init_lists, init_zone
from emulator.guest.mm.layout import MOVABLE, NO_SLOT_PAGE, PAGE, PAGE_SIZE, ZONE_NOFRAGMENT
from emulator.guest.mm.views import GuestMemory
from emulator.guest.ram_kernels import touch_reserved

_MIN_FREE_KBYTES: Final = (128, 262144)
_WATERMARK_SCALE: Final = 10  # watermark_scale_factor, parts in 10000
_POPULATED_BYTES_MIN: Final = 32 << 20
_POPULATED_BYTES_MAX: Final = 1 << 30
_LOWMEM_RESERVE_RATIO: Final = {"DMA": 256, "DMA32": 256, "NORMAL": 32}


class Zone(Protocol):
    """One `[[guest.zones]]` of a scenario."""

    @property
    def name(self) -> str: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def reserved_bytes(self) -> int: ...
    @property
    def watermark_min(self) -> int | None: ...
    @property
    def watermark_low(self) -> int | None: ...
    @property
    def watermark_high(self) -> int | None: ...


class CacheParameters(Protocol):
    """`[page_cache]` of a scenario, as far as kernels need it."""

    @property
    def read_ahead_bytes(self) -> int: ...
    @property
    def min_unmapped_ratio(self) -> float: ...
    @property
    def zone_reclaim(self) -> bool: ...
    @property
    def host_read_bytes_per_s(self) -> float: ...
    @property
    def disk_read_bytes_per_s(self) -> float: ...


def boot_page_cache(
    mm: GuestMemory, file_pages: Sequence[int], parameters: CacheParameters
) -> None:
    """Fill the page cache's zeroed arrays, of a guest whose zones exist: nothing is cached.

    file_pages: the size of each file.
    """
    control, files, slots, _, _ = mm.cache
    files["pages"] = file_pages
    files["first_slot"][1:] = np.cumsum(files["pages"])[:-1]
    slots["file"] = np.repeat(np.arange(len(files)), files["pages"])
    slots["pfn"] = NO_SLOT_PAGE
    managed = mm.zones["managed"]
    control["read_ahead_pages"] = parameters.read_ahead_bytes // PAGE_SIZE
    # Of each zone, rounded down (setup_min_unmapped_ratio).
    control["min_unmapped_pages"] = (managed * parameters.min_unmapped_ratio).astype(int).sum()
    control["node_reclaim"] = parameters.zone_reclaim
    control["host_read_ns"] = PAGE_SIZE / parameters.host_read_bytes_per_s * 1e9
    control["disk_read_ns"] = PAGE_SIZE / parameters.disk_read_bytes_per_s * 1e9


def min_free_pages(managed: Sequence[int], *, thp: bool, pageblock_order: int) -> int:
    """What the guest keeps free, pages, for zones of that many managed pages."""
    total = sum(managed)
    kbytes = math.isqrt(total * PAGE_SIZE // 1024 * 16)
    pages = min(max(kbytes, _MIN_FREE_KBYTES[0]), _MIN_FREE_KBYTES[1]) * 1024 // PAGE_SIZE
    if thp:
        # Two pageblocks a zone, and one for each pair of migratetypes; at most 5 % of what lies
        # above the high watermarks as they are so far (nr_free_buffer_pages).
        recommended = (2 + 3 * 3) * len(managed) << pageblock_order
        above_high = sum(m - _watermarks(pages * m // total, m)[2] for m in managed)
        pages = max(pages, min(recommended, above_high // 20))
    return pages


def _watermarks(minimum: int, managed: int) -> tuple[int, int, int]:
    """Min, low and high: two steps of a quarter of min, or of 0.1 % of the zone if that is more."""
    step = max(minimum // 4, managed * _WATERMARK_SCALE // 10000)
    return minimum, minimum + step, minimum + 2 * step


def boot(
    mm: GuestMemory,
    ram: RamView,
    zones: Sequence[Zone],
    *,
    thp: bool,
    pageblock_order: int,
    virtual: bool,
    deferring: bool = False,
) -> None:
    """Fill zeroed arrays; every page is then free or reserved.

    The pages that the kernel holds from boot are touched, as a real kernel's are.

    deferring: most page records are left to `init_deferred`, as in `deferred_kernels`.
    """
    kernel = mm.kernel[0]
    kernel["nr_pages"] = sum(zone.memory_bytes for zone in zones) // PAGE_SIZE
    kernel["nr_zones"] = len(zones)
    kernel["nr_cpus"] = len(mm.actors) - 1
    kernel["pageblock_order"] = pageblock_order
    kernel["thp"] = thp
    kernel["virtual"] = virtual
    mm.pageblocks[:] = MOVABLE
    managed = [(zone.memory_bytes - zone.reserved_bytes) // PAGE_SIZE for zone in zones]
    min_free = min_free_pages(managed, thp=thp, pageblock_order=pageblock_order)
    start = 0
    for z, zone in enumerate(zones):
        record = mm.zones[z]
        record["start_pfn"] = start
        start += zone.memory_bytes // PAGE_SIZE
        record["end_pfn"] = start
        record["managed"] = managed[z]
        _set_watermarks(record, zone, min_free * managed[z] // sum(managed), managed[z])
        ratio = _LOWMEM_RESERVE_RATIO.get(zone.name, 32)
        record["lowmem_reserve"] = sum(managed[z + 1 :]) // ratio
        if z > 0 and zone.name == "NORMAL" and zones[z - 1].name == "DMA32":
            record["flags"] |= ZONE_NOFRAGMENT
        _set_pcp_limits(mm, z, managed[z])
    init_lists(mm)
    for z, zone in enumerate(zones):
        init_zone(mm, z, zone.reserved_bytes // PAGE_SIZE, deferring)
        touch_reserved(mm, ram, z)


def init_deferred(mm: GuestMemory, actor: int) -> Iterator[None]:
    """Write the page records that boot left out, a section a step, under the zone's lock.

    The array's memory is backed by huge pages just before, where the system has them.  Not beyond
    1 GiB (a guest of 256 GiB): most of a very large guest is never used.
    """
    memory = mm.pages.view(np.uint8)
    for z in range(len(mm.zones)):
        while mm.zones[z]["deferred_pages"]:
            if _POPULATED_BYTES_MIN <= memory.nbytes <= _POPULATED_BYTES_MAX:
                first = int(first_deferred(mm, z)) * PAGE.itemsize
                # The array begins anywhere in a huge page: this covers all of the section's.
                populate_huge(memory[max(0, first - HUGE_PAGE_SIZE) : first + 2 * HUGE_PAGE_SIZE])
            init_next_section(mm, z, actor)
            yield


def _set_watermarks(record: Any, zone: Zone, share: int, managed: int) -> None:
    """Min, low and high of one zone: given, or a share of the guest's and a quarter on top."""
    given = zone.watermark_min
    minimum, low, high = _watermarks(share if given is None else given, managed)
    if zone.watermark_low is not None:
        low, high = zone.watermark_low, high + zone.watermark_low - low
    record["watermark_min"] = minimum
    record["watermark_low"] = low
    record["watermark_high"] = high if zone.watermark_high is None else zone.watermark_high


def _set_pcp_limits(mm: GuestMemory, z: int, managed: int) -> None:
    """zone_batchsize and zone_highsize."""
    batch = max(min(managed >> 10, (1 << 20) // PAGE_SIZE) // 4, 1)
    batch = max((1 << (batch + batch // 2).bit_length() - 1) - 1, 1)
    nr_cpus, nr_zones = int(mm.kernel[0]["nr_cpus"]), int(mm.kernel[0]["nr_zones"])
    high = max(int(mm.zones[z]["watermark_low"]) // nr_cpus, 4 * batch)
    mine: npt.NDArray[Any] = mm.pcps[z::nr_zones]
    mine["batch"] = batch
    mine["high"] = high
