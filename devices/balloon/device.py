"""The device's half of the balloon, without I/O (VIRTIO 1.3, section 5.5; QEMU's virtio-balloon).

Each queue has a handler, which turns a chain that the driver made into ranges to discard and, when
that is done, into an answer:

    request = device.take(name)          a chain, copied and checked; None: nothing to do
    ... discard request.ranges ...       by the caller
    device.complete(request)             the driver may use the memory again from here on

In this order, always: a driver reuses memory as soon as its report is used, and a discard that
came later would destroy what it wrote.  An element that is no discardable range is dropped and
counted by cause, and its request is completed all the same; a broken ring breaks the device.  The
device itself never reads or writes the reported memory.

Invariant:
    elements == accepted + not_writable + empty + unaligned + outside + poisoned
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import (
    BALLOON_CONFIG,
    BALLOON_PAGE_SIZE,
    DISCARD_RANGE,
    F_FREE_PAGE_HINT,
    F_PAGE_POISON,
    FREE_PAGE,
    HINT_COMMAND_BYTES,
    HINT_DONE,
    HINT_ID_FIRST,
    HINT_ID_MAX,
    HINT_STOP,
    REPORTING,
)
from devices.memory.address_space import NO_REGION, AddressSpace
from devices.virtio.chain import NO_SEGMENTS, Chain
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.errors import DriverError


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A chain that was taken: discard `ranges`, `DISCARD_RANGE[n]`, then complete it."""

    queue: str
    head: int
    ranges: npt.NDArray[Any]
    generation: int  # of the device: how often it had been reset


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingStatistics:
    """Since the device was made: requests, their elements, and why elements were dropped."""

    requests: int = 0
    elements: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    not_writable: int = 0
    empty: int = 0
    unaligned: int = 0
    outside: int = 0
    poisoned: int = 0


class Handler(Protocol):
    """What one kind of queue does with a chain."""

    def ranges(self, chain: Chain) -> npt.NDArray[Any]:
        """What is to be discarded for this chain, `DISCARD_RANGE[n]`; n may be 0."""

    def statistics(self) -> Any:
        """A frozen snapshot."""


class ReportingHandler:
    """Free page reporting (5.5.6.7): every writable element is memory that the guest does not need.

    config:  `BALLOON_CONFIG[1]`; if PAGE_POISON is negotiated and `poison_val` is not 0, then the
             guest expects to find that value in its pages, and nothing is discarded, as in QEMU.
    """

    def __init__(
        self, address_space: AddressSpace, *, features: int, config: npt.NDArray[Any]
    ) -> None:
        self._address_space = address_space
        self._poison = bool(features >> F_PAGE_POISON & 1)
        self._config = config
        self._counts = dict.fromkeys(ReportingStatistics.__dataclass_fields__, 0)

    def ranges(self, chain: Chain) -> npt.NDArray[Any]:
        addr = chain.writable["addr"]
        length = chain.writable["len"].astype(np.uint64)
        region = self._address_space.indices_of(addr, length)
        empty = length == 0
        unaligned = ~empty & ((addr | length) % BALLOON_PAGE_SIZE != 0)
        outside = ~empty & ~unaligned & (region == NO_REGION)
        good = ~empty & ~unaligned & ~outside
        counts = self._counts
        counts["requests"] += 1
        counts["elements"] += len(chain.readable) + len(chain.writable)
        counts["not_writable"] += len(chain.readable)
        counts["empty"] += int(np.count_nonzero(empty))
        counts["unaligned"] += int(np.count_nonzero(unaligned))
        counts["outside"] += int(np.count_nonzero(outside))
        if self._poison and self._config[0]["poison_val"]:
            counts["poisoned"] += int(np.count_nonzero(good))
            return np.empty(0, dtype=DISCARD_RANGE)
        ranges = np.empty(int(np.count_nonzero(good)), dtype=DISCARD_RANGE)
        ranges["region"] = region[good]
        ranges["offset"] = addr[good] - self._address_space.starts[ranges["region"]]
        ranges["length"] = length[good]
        counts["accepted"] += len(ranges)
        counts["accepted_bytes"] += int(ranges["length"].sum())
        return ranges

    def statistics(self) -> ReportingStatistics:
        return ReportingStatistics(**self._counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePageStatistics:
    """Since the device was made: what the driver sent, and what of it counted."""

    commands: int = 0
    elements: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    stale: int = 0  # came when no hint was asked for, or before the driver named the round


class FreePageHandler:
    """Free page hints (5.5.6.5): while it is asked, the driver names memory that nobody needs.

    The device asks with an id in its configuration; the driver sends that id as a buffer to read,
    then a block of memory with each buffer to write, then STOP.  `ranges` are those of blocks that
    came in between.

        stopped    -- request() -->  requested  -- the id comes -->  started
        requested, started  -- stop(), or another command comes while started -->  stopped
        any        -- done() -->     stopped, and the driver gets its blocks back

    config:  `BALLOON_CONFIG[1]`; the caller interrupts the driver after a change.
    """

    def __init__(self, address_space: AddressSpace, *, config: npt.NDArray[Any]) -> None:
        self._address_space = address_space
        self._checked = ReportingHandler(address_space, features=0, config=config)
        self._config = config
        self._id = HINT_ID_FIRST - 1
        self._requested = self._started = False
        self._commands = self._elements = self._stale = 0

    def request(self) -> None:
        """Ask for hints, under the next id."""
        self._id = HINT_ID_FIRST if self._id == HINT_ID_MAX else self._id + 1
        self._requested, self._started = True, False
        self._config[0]["free_page_hint_cmd_id"] = self._id

    def stop(self) -> None:
        """No more hints; the driver keeps its blocks."""
        self._requested = self._started = False
        self._config[0]["free_page_hint_cmd_id"] = HINT_STOP

    def done(self) -> None:
        """The driver may have its blocks back."""
        self.stop()
        self._config[0]["free_page_hint_cmd_id"] = HINT_DONE

    def ranges(self, chain: Chain) -> npt.NDArray[Any]:
        """Raises DriverError for a command that is not one readable buffer of 4 bytes."""
        self._elements += len(chain.readable) + len(chain.writable)
        if len(chain.readable):
            self._take_command(chain)
        if not self._started:
            self._stale += len(chain.writable)
            return np.empty(0, dtype=DISCARD_RANGE)
        return self._checked.ranges(Chain(chain.head, NO_SEGMENTS, chain.writable))

    def _take_command(self, chain: Chain) -> None:
        self._commands += 1
        addr, length = (int(chain.readable[0][name]) for name in ("addr", "len"))
        view = self._address_space.view(addr, length)
        if len(chain.readable) != 1 or length != HINT_COMMAND_BYTES or view is None:
            raise DriverError(f"a free page command of {length} bytes at {addr:#x}, not of 4")
        command = int.from_bytes(view.tobytes(), "little")
        if self._requested and command == self._id:
            self._requested, self._started = False, True
        elif self._started:
            self._started = False

    def statistics(self) -> FreePageStatistics:
        seen = self._checked.statistics()
        return FreePageStatistics(
            commands=self._commands,
            elements=self._elements,
            accepted=seen.accepted,
            accepted_bytes=seen.accepted_bytes,
            stale=self._stale,
        )


class BalloonDevice:
    """A balloon device: its queues, a handler for each, and its configuration.

    queues:         the device's half of each queue that the driver has set up, by name
                    (`layout.QUEUES`; numbers from `features.queue_indices`)
    address_space:  the guest's memory
    features:       what the driver accepted
    config:         `BALLOON_CONFIG[1]`, where the driver sees it; None: memory of its own

    Raises ValueError for a queue that no handler knows.
    """

    def __init__(
        self,
        queues: Mapping[str, DeviceQueue],
        address_space: AddressSpace,
        *,
        features: int,
        config: npt.NDArray[Any] | None = None,
    ) -> None:
        self.config: Final = np.zeros(1, dtype=BALLOON_CONFIG) if config is None else config
        handlers: dict[str, Handler] = {
            REPORTING: ReportingHandler(address_space, features=features, config=self.config)
        }
        self.free_pages: FreePageHandler | None = None
        if features >> F_FREE_PAGE_HINT & 1:
            self.free_pages = FreePageHandler(address_space, config=self.config)
            handlers[FREE_PAGE] = self.free_pages
        for name in queues:
            if name not in handlers:
                raise ValueError(f"no handler for queue {name!r}; there are: {sorted(handlers)}")
        self._handlers = handlers
        self.queues = dict(queues)
        self.broken: str | None = None
        self._generation = 0

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
            ranges=self._handlers[name].ranges(chain),
            generation=self._generation,
        )

    def complete(self, request: Request) -> bool:
        """Give a request back, after its ranges were discarded; whether the driver must be called.

        The used length is 0: the device guarantees nothing about what the memory holds now.
        A request that was taken before a reset is not given back: nobody waits for it.
        """
        if request.generation != self._generation:
            return False
        queue = self.queues[request.queue]
        queue.push_used(request.head, 0)
        return queue.publish()

    def mark_broken(self, reason: str) -> None:
        """Take no more requests, of any queue, until the device is reset (DEVICE_NEEDS_RESET)."""
        self.broken = reason

    def reset(self, start: int = 0) -> None:
        """Begin anew at index `start` of every queue; requests that were taken are forgotten."""
        self.broken = None
        self._generation += 1
        if self.free_pages is not None:
            self.free_pages.stop()
        for queue in self.queues.values():
            queue.reset(start)

    def statistics(self, name: str) -> Any:
        """What the handler of this queue counted: for "reporting", `ReportingStatistics`."""
        return self._handlers[name].statistics()

    def validate(self) -> None:
        """Assert the invariants of the queues and of what was counted."""
        for queue in self.queues.values():
            queue.validate()
        seen = self.statistics(REPORTING)
        dropped = seen.not_writable + seen.empty + seen.unaligned + seen.outside + seen.poisoned
        assert seen.elements == seen.accepted + dropped
