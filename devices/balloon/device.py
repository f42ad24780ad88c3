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
    F_PAGE_POISON,
    REPORTING,
)
from devices.memory.address_space import NO_REGION, AddressSpace
from devices.virtio.chain import Chain
from devices.virtio.device_queue import DeviceQueue


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


class BalloonDevice:
    """A balloon device: its queues, a handler for each, and its configuration.

    queues:         the device's half of each queue that the driver has set up, by name
                    (`layout.QUEUES`; numbers from `features.queue_indices`)
    address_space:  the guest's memory
    features:       what the driver accepted

    Raises ValueError for a queue that no handler knows.
    """

    def __init__(
        self, queues: Mapping[str, DeviceQueue], address_space: AddressSpace, *, features: int
    ) -> None:
        self.config: Final = np.zeros(1, dtype=BALLOON_CONFIG)
        handlers: dict[str, Handler] = {
            REPORTING: ReportingHandler(address_space, features=features, config=self.config)
        }
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
