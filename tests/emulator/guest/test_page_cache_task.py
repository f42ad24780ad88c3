"""kswapd and write-back at work, in virtual time, over plain arrays."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from devices.virtio.notifier import LocalNotifier
from emulator.config.page_cache import PageCacheConfig
from emulator.guest.clock import Clock
from emulator.guest.file_io import FileIo
from emulator.guest.mm.layout import MOVABLE
from emulator.guest.page_cache_task import Kswapd, WriteBack
from tests.support.allocator_kernels import alloc
from tests.support.files import Files, guest_with_files

PAGES_PER_S = 64
SLOW = PageCacheConfig(
    write_back_bytes_per_s=PAGES_PER_S * 4096, dirty_background=0.5, dirty_ratio=0.6
)


@pytest.fixture
def files() -> Files:
    """1024 pages of memory, and files of 600, 8 and 400."""
    files = guest_with_files(600, 8, 400, high=4000)
    files.control["read_ahead_pages"] = 1
    return files


def kswapd_of(
    files: Files, *, flusher: LocalNotifier | None = None
) -> tuple[Kswapd, LocalNotifier]:
    freed = LocalNotifier()
    clock = Clock(files.mm.kernel)
    return Kswapd(files.mm, clock, freed=freed, flusher=flusher or LocalNotifier()), freed


def free_pages(files: Files) -> int:
    return int(files.mm.zones["free_pages"][0])


# --- kswapd.


async def test_kswapd_works_from_low_to_high(files: Files, autojump_clock: MockClock) -> None:
    files.read(0, 0, 60)
    for first in range(0, 600, 60):
        files.read(0, first, 60)
    zone = files.mm.zones[0]
    start = free_pages(files)
    zone["watermark_min"], zone["watermark_low"] = start + 20, start + 40
    zone["watermark_high"] = start + 60
    kswapd, _ = kswapd_of(files)
    woken = LocalNotifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kswapd.run, woken)
        await trio.sleep(1)
        assert (free_pages(files), files.control["kswapd_runs"]) == (start, 0)
        files.control["kswapd_wanted"] = 1
        woken.notify()
        await trio.sleep(1)
        assert start + 60 < free_pages(files) <= start + 60 + 64
        assert files.control["kswapd_runs"] == 1
        assert files.control["kswapd_pages"] == free_pages(files) - start
        nursery.cancel_scope.cancel()
    files.guest.counts()


async def test_kswapd_finds_balance_and_does_nothing(files: Files) -> None:
    files.read(0, 0, 60)
    kswapd, _ = kswapd_of(files)
    await kswapd.balance()
    assert files.control["kswapd_pages"] == 0


async def test_kswapd_takes_back_the_boost_that_it_found(files: Files) -> None:
    """Balanced but for the boost of 1000 pages, which is no reason to reclaim as much."""
    for first in range(0, 600, 60):
        files.read(0, first, 60)
    zone = files.mm.zones[0]
    zone["watermark_high"], zone["watermark_boost"] = 10, 50
    start = free_pages(files)
    kswapd, _ = kswapd_of(files)
    await kswapd.balance()
    assert zone["watermark_boost"] == 0
    # 600 >> 12 and 600 >> 11 are nothing: a boost without progress is given up.
    assert free_pages(files) == start


async def test_kswapd_gives_up_on_dirty_pages_and_wakes_the_flusher(files: Files) -> None:
    files.write(0, 0, 60)
    files.mm.zones[0]["watermark_high"] = 2000
    flusher = LocalNotifier()
    kswapd, _ = kswapd_of(files, flusher=flusher)
    await kswapd.balance()
    assert files.control["kswapd_pages"] == 0
    assert files.control["flush_wanted"] == 1
    with trio.fail_after(1):
        await flusher.wait_notified()
    files.guest.counts()


async def test_what_kswapd_frees_wakes_the_hinting_task(files: Files) -> None:
    files.mm.hooks.control[0]["order"] = 0
    for first in range(0, 600, 60):
        files.read(0, first, 60)
    files.mm.kernel[0]["doorbell"] = 0
    files.mm.zones[0]["watermark_high"] = free_pages(files) + 10
    kswapd, freed = kswapd_of(files)
    await kswapd.balance()
    with trio.fail_after(1):
        await freed.wait_notified()


# --- Write-back.


def write_back_of(files: Files, config: PageCacheConfig = SLOW) -> WriteBack:
    return WriteBack(files.mm, files.ram, Clock(files.mm.kernel), config)


async def test_old_pages_are_written_at_a_pace(files: Files, autojump_clock: MockClock) -> None:
    """Looked at every 5 s, old after 30 s, 64 pages a second."""
    woken = LocalNotifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_back_of(files).run, woken)
        await trio.sleep(1)
        Clock(files.mm.kernel).now_s()
        files.write(0, 0, 32)
        await trio.sleep(33.9)  # At 31 s it is old, at 35 s somebody looks.
        assert (files.control["dirty_pages"], files.control["writeback_pages"]) == (32, 0)
        await trio.sleep(0.2)
        assert (files.control["dirty_pages"], files.control["writeback_pages"]) == (0, 32)
        await trio.sleep(0.5)
        assert (files.control["writeback_pages"], files.control["written_pages"]) == (0, 32)
        nursery.cancel_scope.cancel()
    files.guest.counts()


async def test_too_much_dirt_is_written_at_once(files: Files, autojump_clock: MockClock) -> None:
    for first in range(0, 600, 60):
        files.write(0, first, 60)  # Of 1024 pages, 512 may wait.
    woken = LocalNotifier()
    woken.notify()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_back_of(files).run, woken)
        await trio.sleep(4.1)
        assert (files.control["written_pages"], files.control["dirty_pages"]) == (256, 344)
        await trio.sleep(4)
        assert files.control["dirty_pages"] == 344  # Few enough: the rest waits for its time.
        nursery.cancel_scope.cancel()


async def test_cancelled_write_back_loses_nothing(files: Files, autojump_clock: MockClock) -> None:
    files.write(0, 0, 20)
    files.control["flush_wanted"] = 1
    with trio.move_on_after(5.1):
        await write_back_of(files).run(LocalNotifier())
    assert files.control["writeback_pages"] == 20
    files.guest.counts()
    assert files.drop() == 0


# --- What a vCPU does about it.


def io_of(files: Files, flusher: LocalNotifier, config: PageCacheConfig = SLOW) -> FileIo:
    clock = Clock(files.mm.kernel)
    return FileIo(files.mm, 0, clock, config, kswapd=LocalNotifier(), flusher=flusher)


async def test_a_vcpu_pays_for_its_reads(files: Files, autojump_clock: MockClock) -> None:
    files.mm.cache.io[0]["owed_ns"] = 1_500_000_000
    io = io_of(files, LocalNotifier())
    assert await io.settle() == 1.5
    assert await io.settle() == 0
    assert trio.current_time() == 1.5


async def test_sync_waits_until_all_is_written(files: Files, autojump_clock: MockClock) -> None:
    files.write(0, 3, 64)
    files.write(1, 3, 5)
    flusher = LocalNotifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_back_of(files).run, flusher)
        await io_of(files, flusher).sync()
        assert files.dirty() == set()
        assert 69 / PAGES_PER_S <= trio.current_time() < 69 / PAGES_PER_S + 0.1
        nursery.cancel_scope.cancel()


async def test_a_writer_is_held_up_for_a_while(files: Files, autojump_clock: MockClock) -> None:
    for first in range(0, 600, 60):
        files.write(0, first, 60)
    for first in range(0, 60, 30):
        files.write(2, first, 30)  # 660 of 1024: more than 60 %.
    flusher = LocalNotifier()
    assert await io_of(files, flusher).settle() == pytest.approx(0.2)
    with trio.fail_after(1):
        await flusher.wait_notified()


async def test_out_of_memory_waits_for_a_page(files: Files, autojump_clock: MockClock) -> None:
    flusher = LocalNotifier()
    io = io_of(files, flusher)
    assert not await io.notify()  # Nothing is dirty.
    files.write(0, 0, 10)
    assert not await io.notify()  # Nobody writes.
    assert trio.current_time() == 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_back_of(files).run, flusher)
        assert await io.notify()
        nursery.cancel_scope.cancel()


async def test_below_low_an_allocation_asks_for_kswapd(files: Files) -> None:
    wake = LocalNotifier()
    io = partial(FileIo, files.mm, 0, Clock(files.mm.kernel), SLOW, flusher=LocalNotifier())
    while files.guest.pcp()["count"] > 0:
        alloc(files.mm, 0, 0, MOVABLE)
    files.mm.zones["watermark_low"] = 2000
    alloc(files.mm, 0, 0, MOVABLE)
    io(kswapd=wake).pass_on()
    with trio.fail_after(1):
        await wake.wait_notified()
