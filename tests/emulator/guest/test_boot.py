"""Zones, watermarks and per-CPU limits against what /proc/zoneinfo of real kernels said.

The figures are of Linux 6.1 on x86-64, recorded: 1 GiB and 2 GiB with transparent huge pages, and
User-Mode Linux with 512 MiB and without.
"""

from typing import Any

import pytest

from emulator.guest.boot import min_free_pages
from emulator.guest.mm.layout import ZONE_NOFRAGMENT
from tests.support.guest import Guest, ZoneOf


def booted(*managed: int, cpus: int, thp: bool, min_pages: tuple[int, ...] = ()) -> Guest:
    """Zones of so many managed pages, each after some that the kernel keeps."""
    names = ("DMA", "DMA32", "NORMAL") if len(managed) > 1 else ("NORMAL",)
    zones = [
        ZoneOf(
            pages=-(-pages // 1024) * 1024,
            reserved=-pages % 1024,
            name=name,
            watermark_min=min_pages[z] if min_pages else None,
            watermark_low=None,
            watermark_high=None,
        )
        for z, (name, pages) in enumerate(zip(names, managed, strict=False))
    ]
    return Guest(*zones, cpus=cpus, thp=thp, pageblock_order=9 if thp else 10)


def watermarks(guest: Guest) -> list[tuple[int, int, int]]:
    fields = ("watermark_min", "watermark_low", "watermark_high")
    return [tuple(int(zone[it]) for it in fields) for zone in guest.mm.zones]  # type: ignore[misc]


def pcp_limits(guest: Guest) -> list[tuple[int, int]]:
    return [(int(pcp["high"]), int(pcp["batch"])) for pcp in guest.mm.pcps]


# --- 2 GiB: all that the kernel computed.


@pytest.mark.parametrize(("cpus", "high"), [(1, (106, 13972)), (2, (53, 6986))])
def test_2_gib_as_a_real_kernel(cpus: int, high: tuple[int, int]) -> None:
    guest = booted(3840, 502660, cpus=cpus, thp=True)
    assert guest.mm.zones["managed"].tolist() == [3840, 502660]
    assert watermarks(guest) == [(85, 106, 127), (11178, 13972, 16766)]
    assert pcp_limits(guest) == [(high[0], 1), (high[1], 63)] * cpus


# --- 1 GiB: the kernel had set its watermarks before it gave its initial ramdisk back.


@pytest.mark.parametrize("given_back_later", [1700, 2400, 3050])
def test_1_gib_as_a_real_kernel(given_back_later: int) -> None:
    guest = booted(3840, 244999 - given_back_later, cpus=2, thp=True)
    assert watermarks(guest) == [(175, 218, 261), (11088, 13860, 16632)]
    assert pcp_limits(guest) == [(109, 1), (6930, 63)] * 2


def test_1_gib_with_the_pages_that_were_managed_in_the_end() -> None:
    guest = booted(3840, 244999, cpus=2, thp=True)
    assert watermarks(guest) == [(173, 216, 259), (11090, 13862, 16634)]
    assert sum(it[0] for it in watermarks(guest)) == 175 + 11088


def test_1_gib_with_the_recorded_min_has_the_recorded_rest() -> None:
    guest = booted(3840, 244999, cpus=2, thp=True, min_pages=(175, 11088))
    assert watermarks(guest) == [(175, 218, 261), (11088, 13860, 16632)]
    assert pcp_limits(guest) == [(109, 1), (6930, 63)] * 2
    assert guest.mm.zones["lowmem_reserve"].tolist() == [244999 // 256, 0]


# --- User-Mode Linux: one zone, no transparent huge pages.


def test_512_mib_without_huge_pages_as_a_real_kernel() -> None:
    assert watermarks(booted(123179, cpus=1, thp=False)) == [(701, 876, 1051)]


# --- The parts.


@pytest.mark.parametrize(
    ("mib", "kbytes"),
    [(1, 128), (16, 512), (1024, 4096), (2048, 5792), (4096, 8192), (8192, 11584), (16384, 16384)],
)
def test_min_free_kbytes_as_in_the_kernel_s_table(mib: int, kbytes: int) -> None:
    pages = min_free_pages([mib * 256], thp=False, pageblock_order=9)
    assert pages == kbytes // 4  # The table is rounded, and so are whole pages.


def test_min_free_kbytes_has_a_largest_value() -> None:
    assert min_free_pages([1 << 32], thp=False, pageblock_order=9) == 262144 // 4


@pytest.mark.parametrize(
    ("managed", "pages"),
    [
        ([2 * 10**6], 11 * 512),
        ([10**7], 6324),  # As much as without.
        ([4000, 10**6], 22 * 512),
        ([4000, 10**6, 3 * 10**6], 33 * 512),
        # At most 5 % of what is above the high watermark, without: 632, and a half on top.
        ([100_000], (100_000 - 948) // 20),
    ],
)
def test_huge_pages_want_eleven_pageblocks_a_zone_kept_free(managed: list[int], pages: int) -> None:
    assert min_free_pages(managed, thp=True, pageblock_order=9) == pages


def test_a_step_is_a_thousandth_of_the_zone_at_least() -> None:
    guest = Guest(ZoneOf(pages=100_000, watermark_min=8, watermark_low=None, watermark_high=None))
    assert watermarks(guest) == [(8, 108, 208)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(None, None, (400, 500, 600)), (700, None, (400, 700, 800)), (700, 701, (400, 700, 701))],
)
def test_given_watermarks_are_taken(low: Any, high: Any, expected: tuple[int, int, int]) -> None:
    zone = ZoneOf(pages=2048, watermark_min=400, watermark_low=low, watermark_high=high)
    assert watermarks(Guest(zone)) == [expected]


@pytest.mark.parametrize(
    ("pages", "batch"), [(3840, 1), (8192, 1), (16384, 3), (65536, 15), (130000, 31), (262144, 63)]
)
def test_the_batch_grows_with_the_zone_up_to_1_gib(pages: int, batch: int) -> None:
    assert pcp_limits(Guest(ZoneOf(pages=pages)))[0] == (4 * batch, batch)


def test_the_limits_of_each_vcpu_and_zone() -> None:
    guest = Guest(
        ZoneOf(pages=1024, name="DMA", watermark_low=30),
        ZoneOf(pages=1024, watermark_low=900),
        cpus=3,
    )
    assert [int(guest.pcp(cpu, z)["high"]) for cpu in range(3) for z in (0, 1)] == [10, 300] * 3


def test_what_is_reserved_for_requests_that_a_lower_zone_could_serve() -> None:
    guest = Guest(
        ZoneOf(pages=1024, name="DMA"),
        ZoneOf(pages=51200, name="DMA32"),
        ZoneOf(pages=102400, name="NORMAL"),
    )
    assert guest.mm.zones["lowmem_reserve"].tolist() == [600, 400, 0]


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (("NORMAL",), [0]),
        (("DMA", "DMA32"), [0, 0]),
        (("DMA32", "NORMAL"), [0, ZONE_NOFRAGMENT]),
        (("DMA", "NORMAL"), [0, 0]),
    ],
)
def test_only_normal_above_dma32_avoids_mixing(names: tuple[str, ...], flags: list[int]) -> None:
    guest = Guest(*(ZoneOf(pages=1024, name=name) for name in names))
    assert guest.mm.zones["flags"].tolist() == flags
