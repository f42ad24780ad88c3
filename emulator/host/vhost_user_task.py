"""The balloon as a device behind a vhost-user socket: what a back-end serves a guest with.

It is the device that emulated guests have (`devices/balloon`), and discards by the same code; only
that the guest's memory, its features and its queues become known as its front-end tells of them,
and are gone when it leaves.  What the host wishes, the target, outlives guests.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import numpy.typing as npt
import trio

from devices.balloon.config_space import CONFIG_BYTES, ConfigSpace
from devices.balloon.device import BalloonDevice
from devices.balloon.device_task import poll_statistics, serve_queue
from devices.balloon.features import queue_indices
from devices.balloon.layout import (
    BALLOON_CONFIG,
    BALLOON_PAGE_SIZE,
    DRIVER_FIELDS,
    FREE_PAGE,
    INFLATE,
    QUEUES,
    REPORTING,
    STATS,
)
from devices.memory.address_space import AddressSpace
from devices.vhost_user.transport import Detached, Event, QueueStarted, QueueStopped, Server
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.errors import DriverError
from devices.virtio.notifier import Notifier
from emulator.errors import RunFailed
from emulator.host.discard import Discardable, Discarder
from emulator.host.task import account_for

# Told of each report: when it came (trio's clock), guest addresses and lengths (u8[n] each), and
# how many bytes came back.
Reported = Callable[[float, npt.NDArray[Any], npt.NDArray[Any], int], None]


Discard = Callable[[npt.NDArray[Any]], Awaitable[None]]


def _ignore(at_s: float, addr: npt.NDArray[Any], length: npt.NDArray[Any], returned: int) -> None:
    """Nobody wants to know."""


async def _forget(ranges: npt.NDArray[Any]) -> None:
    """A hint is for a migration, and there is none: the page may be in use again."""


class VhostUserBalloon:
    """A balloon for one guest after another; `vhost_user.device.Device` for a back-end.

    features:       what is offered
    reports, pages: HOST[1] each: what reports gave back, and what the balloon did;  pages None: all
                    is counted in `reports`, also what one gave back and the other once more
    stats_due:      awaited before a guest is asked for its figures, each time; None: never
    hinted:         awaited with each free page hint
    reported:       told of each report
    leaving:        called when a guest leaves, while its memory can still be looked at
    """

    queues_max: Final = len(QUEUES)

    def __init__(
        self,
        *,
        features: int,
        reports: npt.NDArray[Any],
        pages: npt.NDArray[Any] | None,
        stats_due: Callable[[], Awaitable[None]] | None = None,
        hinted: Discard = _forget,
        reported: Reported = _ignore,
        leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self.features: Final = features
        self.config: Final = ConfigSpace()
        self.balloon: BalloonDevice | None = None  # While a guest's driver is bound.
        self.memory = AddressSpace([])
        self._accounts = (reports, pages)
        self._stats_due = stats_due
        self._reported = reported
        self._leaving = leaving
        self._target_bytes: int | None = None
        self._discards: Final = {
            REPORTING: self._discard_report,
            INFLATE: self._discard_pages,
            FREE_PAGE: hinted,
        }
        self._use_nothing()

    # What a back-end asks of a device.

    def read_config(self, offset: int, size: int) -> bytes | None:
        """The configuration, as the driver may see it; None if there is no such part."""
        return None if offset + size > CONFIG_BYTES else self.config.read(offset, size)

    def write_config(self, offset: int, data: bytes, *, migration: bool) -> bool:
        """Write what the driver may; a migration restores all of it."""
        if offset + len(data) > CONFIG_BYTES:
            return False
        if not migration and not set(range(offset, offset + len(data))) <= _DRIVER_BYTES:
            return False
        if migration:
            self.config.words.view("u1")[offset : offset + len(data)] = list(data)
        else:
            self.config.write(offset, data)
        return True

    def begin(self, memory: AddressSpace, features: int) -> None:
        """A driver is bound."""
        self.balloon = BalloonDevice(
            {},
            memory,
            features=features,
            config=self.config,
            granule_bytes=_host_page_bytes(memory),
        )
        self._use(memory)

    def replace_memory(self, memory: AddressSpace) -> None:
        """The guest has gained or lost memory."""
        if self.balloon is not None:
            self.settle()
            self.balloon.replace_memory(memory)
            self._use(memory)

    async def serve_queue(
        self, index: int, queue: DeviceQueue, *, kick: Notifier, call: Notifier
    ) -> None:
        """Serve one queue until cancelled; DriverError if the driver broke the protocol."""
        balloon = self.balloon
        assert balloon is not None, "served before it has begun"
        names = {number: name for name, number in queue_indices(balloon.features).items()}
        if index not in names:
            raise DriverError(f"queue {index} does not exist with the accepted features")
        name = names[index]
        balloon.attach_queue(name, queue)
        try:
            async with trio.open_nursery() as nursery:
                if name == STATS and self._stats_due is not None:
                    poll = partial(poll_statistics, call=call, wait_due=self._stats_due)
                    nursery.start_soon(poll, balloon)
                discard = self._discards.get(name, _forget)
                await serve_queue(balloon, name, kick=kick, call=call, discard=discard)
                nursery.cancel_scope.cancel()
        finally:
            if balloon.detach_queue(name):
                call.notify()
        raise DriverError(balloon.broken or "the device is broken")

    def reset(self) -> None:
        """The driver is gone; its memory is about to go."""
        if self.balloon is None:
            return
        self._leaving()
        self.settle()
        self.balloon.reset()
        self.balloon = None
        self._use_nothing()

    # What the host asks.

    @property
    def memory_bytes(self) -> int:
        """All memory of the guest that is attached."""
        return sum(region.size_bytes for region in self.memory.regions)

    @property
    def actual_bytes(self) -> int:
        """What the driver says is in the balloon."""
        return int(self.config.words[0]["actual"]) * BALLOON_PAGE_SIZE

    @property
    def wanted_bytes(self) -> int:
        """What the driver is asked to have in the balloon."""
        return int(self.config.words[0]["num_pages"]) * BALLOON_PAGE_SIZE

    @property
    def target_bytes(self) -> int | None:
        """What the guest is to be left with; None: all it has."""
        return self._target_bytes

    def set_target(self, target_bytes: int | None) -> None:
        """Leave the guest with so much memory and have the rest in its balloon; None: nothing."""
        self._target_bytes = target_bytes
        if self.balloon is not None:
            wanted = 0 if target_bytes is None else max(0, self.memory_bytes - target_bytes)
            pages = wanted // BALLOON_PAGE_SIZE
            self.balloon.set_target(min(pages, self.balloon.pages.size_pages))

    def resident_bytes(self) -> int:
        """What the host has behind the guest: blocks of all files that its memory lies in."""
        found = [os.fstat(it.fd) for it in self.memory.regions if it.fd is not None]
        return sum({(it.st_dev, it.st_ino): it.st_blocks * 512 for it in found}.values())

    def discard(self, ranges: npt.NDArray[Any]) -> int:
        """Give ranges back that nobody has reported; the bytes that came back."""
        return self._reports.discard(ranges)

    def settle(self) -> None:
        """Count what was returned and touched again."""
        self._reports.settle()
        if self._pages is not self._reports:
            self._pages.settle()

    def _use(self, memory: AddressSpace) -> None:
        self.memory = memory
        reports, pages = self._accounts
        self._reports = self._discarder(reports)
        self._pages = self._reports if pages is None else self._discarder(pages)
        self.set_target(self._target_bytes)

    def _discarder(self, account: npt.NDArray[Any]) -> Discarder:
        regions = {
            index: Discardable.of_memory(region)
            for index, region in enumerate(self.memory.regions)
            if (region.guest_addr | region.fd_offset_bytes) % BALLOON_PAGE_SIZE == 0
        }
        return Discarder(regions, account)

    def _use_nothing(self) -> None:
        self._use(AddressSpace([]))

    async def _discard_pages(self, ranges: npt.NDArray[Any]) -> None:
        reports, pages = self._accounts
        account = reports if pages is None else pages
        account[0]["inflated_returned_bytes"] += self._pages.discard(ranges)

    async def _discard_report(self, ranges: npt.NDArray[Any]) -> None:
        at_s = trio.current_time()
        returned = self._reports.discard(ranges)
        starts = self.memory.starts[ranges["region"]]
        addresses = starts + ranges["offset"].astype("u8")
        self._reported(at_s, addresses, ranges["length"].astype("u8"), returned)


async def serve_emulated_guest(
    stream: socket.socket,
    account: npt.NDArray[Any],
    *,
    features: int,
    statistics_s: float | None = None,
    hinted: Discard = _forget,
    begun: Callable[[VhostUserBalloon], None] = lambda balloon: None,
) -> None:
    """Serve the guest at the other end of a connected socket until it leaves.

    account:       HOST[1]
    statistics_s:  how often it is asked for its figures; None: never
    begun:         called once its queues are served
    Raises RunFailed if it breaks the protocol: nothing more of its memory is touched then.
    """

    def leaving() -> None:
        assert balloon.balloon is not None
        account_for(balloon.balloon, account[0])

    def observe(event: Event) -> None:
        match event:
            case QueueStopped(_, str(reason)) | Detached(_, str(reason)):
                account[0]["broken"] = 1
                raise RunFailed(f"the guest broke its balloon device: {reason}")
            case QueueStarted() if balloon.balloon is not None:
                begun(balloon)
            case _:
                pass

    def config_changed() -> None:
        if server.backend is not None:
            server.backend.notify_config_changed()

    balloon = VhostUserBalloon(
        features=features,
        reports=account,
        pages=None,
        stats_due=None if statistics_s is None else partial(trio.sleep, statistics_s),
        hinted=hinted,
        leaving=leaving,
    )
    balloon.config.changed = config_changed
    server = Server(balloon, observe=observe)
    await server.serve_stream(stream)


def _host_page_bytes(memory: AddressSpace) -> int:
    """The least that a file behind the guest gives back: more than 4 KiB on hugetlbfs."""
    files = [region.fd for region in memory.regions if region.fd is not None]
    return max([BALLOON_PAGE_SIZE, *(os.fstatvfs(fd).f_bsize for fd in files)])


def _driver_bytes() -> set[int]:
    assert BALLOON_CONFIG.fields is not None
    places = [BALLOON_CONFIG.fields[name][:2] for name in DRIVER_FIELDS]
    return {at for dtype, start in places for at in range(start, start + dtype.itemsize)}


_DRIVER_BYTES: Final = _driver_bytes()  # Of the configuration, those that it may write.
