"""A vCPU dies while it works on the page cache: lists and counts are made anew, nothing is lost."""

from collections.abc import Callable

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from devices.memory.jit import interpreted
from devices.memory.ram import RamView
from emulator.guest.mm.layout import ALLOCATED, CACHE
from emulator.guest.mm.lock_kernels import release_cache, try_acquire_cache
from emulator.guest.recovery_task import take_back
from tests.support import cache_kernels
from tests.support.files import Files, guest_with_files
from tests.support.mortal import Killed, Life, Mortal, mortal_memory


@pytest.fixture
def files() -> Files:
    """Some pages read, some active, some mapped, some dirty."""
    files = guest_with_files(16, 8, 40, pages=96, cpus=2)
    files.read(0, 0, 6)
    files.read(0, 2, 3)
    files.read(1, 2, 2, mapped=True)
    files.write(2, 5, 4)
    return files


async def test_what_a_dead_vcpu_cached_stays(files: Files) -> None:
    before = (files.inactive, files.active, files.dirty())
    await take_back(files.mm, 0, now_ns=0)
    assert (files.inactive, files.active, files.dirty()) == before
    assert files.guest.counts()[CACHE] == 12
    assert files.guest.counts()[ALLOCATED] == 0


async def test_the_lock_of_the_dead_is_taken_and_the_lists_made_anew(files: Files) -> None:
    before = (set(files.inactive), set(files.active), files.dirty())
    assert try_acquire_cache(files.mm, 0)
    files.control["active_pages"] = 99  # Half done with something.
    files.mm.pages["next"][files.mm.cache.slots["pfn"][2]] = 0
    await take_back(files.mm, 0, now_ns=0)
    assert (set(files.inactive), set(files.active), files.dirty()) == before
    assert files.control["lock"] == 0
    files.guest.counts()


async def test_a_lock_of_the_living_is_waited_for(files: Files, autojump_clock: MockClock) -> None:
    assert try_acquire_cache(files.mm, 1)
    async with trio.open_nursery() as nursery:

        async def recover() -> None:
            await take_back(files.mm, 0, now_ns=0)

        nursery.start_soon(recover)
        await trio.sleep(1)
        assert files.control["lock"] == 2
        release_cache(files.mm)
    assert files.control["lock"] == 0


# --- Death at every store, with kernels interpreted.


def read_ahead(files: Files) -> None:
    files.read(2, 0, 8)


def read_again(files: Files) -> None:
    files.read(0, 0, 6)


def read_mapped(files: Files) -> None:
    files.read(1, 4, 2, mapped=True)


def write_anew(files: Files) -> None:
    files.write(2, 20, 3)


def write_over(files: Files) -> None:
    files.write(0, 1, 4)


def reclaim(files: Files) -> None:
    cache_kernels.direct(files.mm, 0)


def drop(files: Files) -> None:
    files.drop()


def unmap(files: Files) -> None:
    files.unmap()


OPERATIONS = [read_ahead, read_again, read_mapped, write_anew, write_over, reclaim, drop, unmap]


@pytest.mark.skipif(not interpreted(), reason="run by test_compilations, uncompiled")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_death_at_any_store(files: Files, operation: Callable[[Files], None]) -> None:
    saved = files.guest.save()

    def mortal(life: Life) -> Files:
        words = Mortal(files.ram.words, life)
        ram = RamView(words, files.ram.shift, files.ram.accounted)  # type: ignore[arg-type]
        return Files(files.guest, mortal_memory(files.mm, life), ram)

    whole = Life(None)
    operation(mortal(whole))
    assert whole.done > 4
    for stores in range(whole.done):
        files.guest.restore(saved)
        with pytest.raises(Killed):
            operation(mortal(Life(stores)))
        await take_back(files.mm, 0, now_ns=0)
        assert files.guest.counts()[ALLOCATED] == 0, stores
        after(files)


def after(files: Files) -> None:
    """Whatever was left half done: all can be written, dropped and read again."""
    files.mm.actors[0]["state"] = 0
    while files.write_back():
        files.guest.counts()
    files.unmap()
    files.drop()
    assert files.guest.counts()[CACHE] == 0
    for file, pages in enumerate((16, 8, 40)):
        assert files.read(file, 0, pages) == pages
    assert files.violations() == 0
    versions = files.mm.cache.slots["version"].astype(np.int64)
    assert (versions[29:33] == 1).all(), "what had been written before"
