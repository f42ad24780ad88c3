"""The balloon device, without I/O (VIRTIO 1.3, section 5.5; QEMU's virtio-balloon).

Each queue has a handler, which turns a chain that the driver made into ranges to discard and, when
that is done, into an answer:

    request = device.take(name)          a chain, copied and checked; None: nothing to do
    ... discard request.ranges ...       by the caller
    device.complete(request)             the driver may use the memory again from here on

In this order, always: a driver reuses memory as soon as its report is used, and a discard that
came later would destroy what it wrote.  An element that is no discardable range is dropped and
counted by cause, and its request is completed all the same; a broken ring breaks the device.  The
device itself never writes the guest's memory, and reads what it is told to read once.

Only a statistics buffer is kept when it is completed, until `ask_statistics` gives it back.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from devices.balloon.balloon_pages import BalloonPages
from devices.balloon.config_space import ConfigSpace
from devices.balloon.features import queue_indices
from devices.balloon.free_page import FreePageHandler
from devices.balloon.handler import Handler
from devices.balloon.layout import (
    BALLOON_PAGE_SIZE,
    DEFLATE,
    FREE_PAGE,
    INFLATE,
    PFNS_MAX,
    REPORTING,
    STATS,
)
from devices.balloon.page_numbers import PageNumberHandler
from devices.balloon.reporting import ReportingHandler
from devices.balloon.stats import StatsHandler
from devices.memory.address_space import AddressSpace
from devices.virtio.device_queue import DeviceQueue


class Request(NamedTuple):
    """A chain that was taken: discard `ranges`, `DISCARD_RANGE[n]`, then complete it."""

    queue: str
    head: int
    ranges: npt.NDArray[Any]
    generation: int  # of the device: how often it had been reset


class BalloonDevice:
    """A balloon device: its queues, a handler for each, and its configuration.

    queues:         the device's half of queues that the driver has set up, by name
                    (`layout.QUEUES`; numbers from `features.queue_indices`); more may be attached
    address_space:  the guest's memory
    features:       what the driver accepted
    config:         where the driver sees the configuration; None: memory of its own
    granule_bytes:  the host's page size, the least that is discarded
    pfns_max:       page numbers that are taken of one inflate or deflate buffer

    Raises ValueError for a queue that does not exist with these features.
    """

    def __init__(
        self,
        queues: Mapping[str, DeviceQueue],
        address_space: AddressSpace,
        *,
        features: int,
        config: ConfigSpace | None = None,
        granule_bytes: int = BALLOON_PAGE_SIZE,
        pfns_max: int = PFNS_MAX,
    ) -> None:
        self.features: Final = features
        self.config: Final = ConfigSpace() if config is None else config
        self.pages: Final = BalloonPages(address_space, granule_bytes=granule_bytes)
        self._stats = StatsHandler()
        free_pages = FreePageHandler(config=self.config)
        self._address_space = address_space
        every: dict[str, Callable[[], Handler]] = {
            INFLATE: lambda: PageNumberHandler(self.pages, inflate=True, pfns_max=pfns_max),
            DEFLATE: lambda: PageNumberHandler(self.pages, inflate=False, pfns_max=pfns_max),
            STATS: lambda: self._stats,
            FREE_PAGE: lambda: free_pages,
            REPORTING: lambda: ReportingHandler(
                features=features, config=self.config, granule_bytes=granule_bytes
            ),
        }
        self._handlers: dict[str, Handler] = {
            name: every[name]() for name in queue_indices(features)
        }
        self.free_pages: Final = free_pages if FREE_PAGE in self._handlers else None
        self.queues: dict[str, DeviceQueue] = {}
        self.broken: str | None = None
        self._generation = 0
        for name, queue in queues.items():
            self.attach_queue(name, queue)

    @property
    def balloon_bytes(self) -> int:
        """What the driver has said is in the balloon; `actual` is what it claims."""
        return self.pages.pages * BALLOON_PAGE_SIZE

    def attach_queue(self, name: str, queue: DeviceQueue) -> None:
        """Serve this queue from now on, in the place of an older one of its name.

        Raises ValueError for a queue that does not exist with the features.
        """
        if name not in self._handlers:
            raise ValueError(
                f"no handler for queue {name!r} with these features; "
                f"there are: {sorted(self._handlers)}"
            )
        self.queues[name] = queue

    def detach_queue(self, name: str) -> bool:
        """Serve it no more; whether the driver must be called.

        Whoever serves it has stopped: no request of it is under way.  A statistics buffer that is
        held is given back first.  `next_avail_idx` of the queue says where to go on later.
        """
        call = self.ask_statistics() if name == STATS and self.broken is None else False
        del self.queues[name]
        return call

    def replace_memory(self, address_space: AddressSpace) -> None:
        """The guest's memory is another from now on; all queues must be detached."""
        assert not self.queues, f"the queues {sorted(self.queues)} lie in the old memory"
        self._address_space = address_space
        self.pages.replace(address_space)

    def set_target(self, pages: int) -> None:
        """Have the driver keep this many pages of 4 KiB in the balloon, and tell it so.

        Raises ValueError for more than the guest has.
        """
        if not 0 <= pages <= self.pages.size_pages:
            raise ValueError(
                f"a balloon of {pages} pages; the guest has {self.pages.size_pages}, so 0 to that "
                f"many would work"
            )
        self.config.put("num_pages", pages)

    def set_reclaim_cache_first(self, wanted: bool) -> None:
        """Have the driver reclaim page cache first when it fills the balloon (BALLOON_HINT).

        It looks whenever it fills.  Raises ValueError where the word is that of free page hints.
        """
        if self.free_pages is not None:
            raise ValueError("with free page hints there is no reclaim_cache_first")
        self.config.put("reclaim_cache_first", wanted)

    def take(self, name: str) -> Request | None:
        """The next request of a queue; None if there is none, or the device is broken.

        Raises DriverError if the driver broke the protocol; the caller then calls `mark_broken`.
        """
        if self.broken is not None:
            return None
        chain = self.queues[name].pop()
        if chain is None:
            return None
        return Request(
            queue=name,
            head=chain.head,
            ranges=self._handlers[name].ranges(chain, self._address_space),
            generation=self._generation,
        )

    def complete(self, request: Request) -> bool:
        """Give a request back, after its ranges were discarded; whether the driver must be called.

        The used length is 0: the device guarantees nothing about what the memory holds now.
        A request that was taken before a reset is not given back: nobody waits for it.
        """
        if request.generation != self._generation:
            return False
        head: int | None = request.head
        if request.queue == STATS:
            head = self._stats.hold(request.head)
        return self._give_back(request.queue, head)

    def ask_statistics(self) -> bool:
        """Give the statistics buffer back, if one is held, so that the driver fills it again.

        Returns whether the driver must be called.
        """
        return self._give_back(STATS, self._stats.give_back())

    def _give_back(self, name: str, head: int | None) -> bool:
        if head is None:
            return False
        queue = self.queues[name]
        queue.push_used(head, 0)
        return queue.publish()

    def mark_broken(self, reason: str) -> None:
        """Take no more requests, of any queue, until the device is reset (DEVICE_NEEDS_RESET)."""
        self.broken = reason

    def reset(self, start: int = 0) -> None:
        """Begin anew at index `start` of every queue; requests that were taken are forgotten.

        The balloon is empty from here on: the driver has all its pages, and the target stays.
        """
        self.broken = None
        self._generation += 1
        self.config.reset()
        for handler in self._handlers.values():
            handler.reset()
        for queue in self.queues.values():
            queue.reset(start)

    def statistics(self, name: str) -> Any:
        """What the handler of this queue counted: `ReportingStatistics`, `PageNumberStatistics`,
        `GuestStatistics` or `FreePageStatistics`."""
        return self._handlers[name].statistics()

    def validate(self) -> None:
        """Assert the invariants of the queues and of what was counted."""
        for queue in self.queues.values():
            queue.validate()
        for handler in self._handlers.values():
            handler.validate()
