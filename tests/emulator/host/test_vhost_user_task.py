"""The balloon behind a socket: the guest's side is the emulated guest's own front-end."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from devices.balloon.driver_task import FreePageReporter
from devices.balloon.layout import BALLOON_CONFIG, F_PAGE_REPORTING, F_STATS_VQ, REPORTING
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.memory.ram import PAGE_SIZE, GuestRam
from devices.virtio.chain import segments
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from devices.virtio.notifier import EventfdNotifier
from devices.virtio.queue_layout import QueueLayout
from emulator.errors import RunFailed
from emulator.guest.vhost_user_task import FilePart, Ring, attached_device, vhost_user_reporter
from emulator.host.layout import HOST
from emulator.host.vhost_user_task import VhostUserBalloon, serve_emulated_guest

FEATURES = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX | 1 << F_PAGE_REPORTING
PAGES = 1024
RING_ADDR = 1 << 40


@pytest.fixture
def ram() -> Any:
    ram = GuestRam.create("memfd", PAGES * PAGE_SIZE)
    yield ram
    ram.close()


@asynccontextmanager
async def served(
    ram: GuestRam, account: np.ndarray, *, offered: int = FEATURES
) -> AsyncIterator[FreePageReporter]:
    front, back = socket.socketpair()
    layout = QueueLayout(size=32, table_entries=32)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_emulated_guest(back, account, features=offered))
        reporter = vhost_user_reporter(front, ram, layout, RING_ADDR, features=FEATURES)
        async with reporter as found:
            yield found


def resident_pages(ram: GuestRam) -> int:
    return os.fstat(ram.fd).st_blocks * 512 // PAGE_SIZE


async def test_a_report_is_discarded_before_it_is_acknowledged(ram: GuestRam) -> None:
    account = np.zeros(1, HOST)
    os.pwrite(ram.fd, b"\1" * PAGES * PAGE_SIZE, 0)
    with trio.fail_after(20):
        async with served(ram, account) as reporter:
            mib = 1 << 20
            assert await reporter.report(segments([0, 2 * mib], [mib, mib]))
            assert resident_pages(ram) == PAGES // 2
            ram.view().words[0] = 1
    assert account[0]["requests"] == 1
    assert account[0]["claimed_bytes"] == account[0]["returned_bytes"] == 2 << 20
    assert account[0]["refaulted_bytes"] == PAGE_SIZE
    assert account[0]["bad_elements"] == 0


async def test_a_report_of_what_is_no_memory_is_counted(ram: GuestRam) -> None:
    account = np.zeros(1, HOST)
    with trio.fail_after(20):
        async with served(ram, account) as reporter:
            assert await reporter.report(segments([PAGES * PAGE_SIZE], [PAGE_SIZE]))
    assert account[0]["bad_elements"] == 1
    assert account[0]["claimed_bytes"] == 0


async def test_each_side_knows_what_the_other_writes_into_the_configuration(ram: GuestRam) -> None:
    front, back = socket.socketpair()
    layout, ring_fd = QueueLayout(size=32, table_entries=32), os.memfd_create("ring")
    os.ftruncate(ring_fd, layout.size_bytes)
    memory = [FilePart(0, ram.size_bytes, ram.fd), FilePart(RING_ADDR, layout.size_bytes, ring_fd)]
    ring = Ring(layout, RING_ADDR, EventfdNotifier(), EventfdNotifier())
    words = np.zeros(1, BALLOON_CONFIG)
    told, begun = trio.Event(), trio.Event()
    served_by: list[VhostUserBalloon] = []

    def begin(balloon: VhostUserBalloon) -> None:
        served_by.append(balloon)
        begun.set()

    def changed() -> None:
        if words[0]["num_pages"] == 7:
            told.set()

    serve = partial(serve_emulated_guest, features=FEATURES, begun=begin)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, back, np.zeros(1, HOST))
            rings = {REPORTING: ring}
            attached = attached_device(
                front, memory, rings, features=FEATURES, config=words, changed=changed
            )
            async with attached as device:
                await begun.wait()
                words[0]["actual"] = 5
                device.write_config()
                assert served_by[0].balloon is not None
                served_by[0].balloon.set_target(7)
                await told.wait()  # Read after `actual` was written.
                assert served_by[0].actual_bytes == 5 * PAGE_SIZE
                assert words[0]["actual"] == 5
    for notifier in (ring.kick, ring.call):
        notifier.close()
    os.close(ring_fd)


async def test_a_device_without_reporting_is_no_device(ram: GuestRam) -> None:
    offered = FEATURES & ~(1 << F_PAGE_REPORTING)
    with trio.fail_after(20), pytest.raises(BaseExceptionGroup) as caught:
        async with served(ram, np.zeros(1, HOST), offered=offered):
            pass
    assert caught.group_contains(RunFailed, match="lacks page_reporting")


def balloon(**options: Any) -> VhostUserBalloon:
    accounts = np.zeros(2, HOST)
    features = FEATURES | 1 << F_STATS_VQ
    return VhostUserBalloon(features=features, reports=accounts[:1], pages=accounts[1:], **options)


@pytest.fixture
def memory() -> Any:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, PAGES * PAGE_SIZE)
    bytes_ = np.zeros(PAGES * PAGE_SIZE, np.uint8)
    region = MemoryRegion(guest_addr=1 << 20, size_bytes=len(bytes_), fd=fd, memory=bytes_)
    yield AddressSpace([region])
    os.close(fd)


def num_pages(device: VhostUserBalloon) -> int:
    found = device.read_config(0, 16)
    assert found is not None
    return int(np.frombuffer(found, BALLOON_CONFIG)[0]["num_pages"])


def test_a_target_waits_for_the_guest_and_outlives_it(memory: AddressSpace) -> None:
    changes: list[None] = []
    device = balloon()
    device.config.changed = lambda: changes.append(None)
    device.set_target(3 << 20)
    assert num_pages(device) == 0
    for _ in range(2):
        device.begin(memory, device.features)
        assert num_pages(device) == 256
        device.reset()
    device.begin(memory, device.features)
    changes.clear()
    device.set_target(None)
    assert (num_pages(device), len(changes)) == (0, 1)
    device.set_target(0)
    assert num_pages(device) == PAGES
    device.set_target(1 << 40)
    assert num_pages(device) == 0


@pytest.mark.parametrize(
    ("offset", "size", "written"),
    [
        (4, 4, True),
        (12, 4, True),
        (0, 4, False),
        (4, 8, False),
        (14, 4, False),
        (1 << 31, 4, False),
    ],
)
def test_a_driver_writes_its_own_fields_only(offset: int, size: int, written: bool) -> None:
    device = balloon()
    assert device.write_config(offset, b"\1" * size, migration=False) == written
    found = device.read_config(0, 16)
    assert found is not None and found.count(1) == size * written


def test_a_migration_restores_all_of_it() -> None:
    device = balloon()
    assert device.write_config(0, bytes(range(16)), migration=True)
    assert device.read_config(0, 16) == bytes(range(16))
    assert device.read_config(8, 9) is None
    assert not device.write_config(8, bytes(9), migration=True)


def test_someone_may_look_before_the_memory_goes(memory: AddressSpace) -> None:
    seen: list[int] = []
    look: Callable[[], None] = lambda: seen.append(device.memory_bytes)  # noqa: E731
    device = balloon(leaving=look)
    device.begin(memory, device.features)
    device.reset()
    device.reset()
    assert seen == [PAGES * PAGE_SIZE]
    assert device.resident_bytes() == device.memory_bytes == 0
