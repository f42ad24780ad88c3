"""One vring of a back-end: what a front-end has said of it, and the queue while it is served.

    stopped   -- SET_VRING_KICK -->  started  -- GET_VRING_BASE, reset -->  stopped
    disabled  <-- SET_VRING_ENABLE -->  enabled

A vring is served while it is started, enabled, whole (size and addresses) and not broken.  While it
is served it does not move: its size, base and addresses are refused.
"""

from typing import Final

from devices.vhost_user.errors import Refused
from devices.vhost_user.guest_memory import GuestMemory
from devices.vhost_user.inflight import InflightArea
from devices.vhost_user.messages import VringAddresses
from devices.vhost_user.notifier import CallLine, DescriptorNotifier
from devices.vhost_user.vring_queue import VringQueue
from devices.virtio.errors import DriverError
from devices.virtio.queue_layout import QueueViews, find_queue


class Vring:
    """Vring number `index`; size, base, addresses, kick, enabled and broken are set by requests.

    base:    the index that it goes on from, 0 .. 65535
    broken:  why it cannot be served until it is set up anew; None: it can
    queue:   while it is served
    """

    def __init__(self, index: int) -> None:
        self.index: Final = index
        self.call: Final = CallLine()
        self.error: Final = CallLine()
        self.kick: DescriptorNotifier | None = None
        self.queue: VringQueue | None = None
        self.reset()

    def reset(self) -> None:
        """As in the beginning; it is not being served."""
        assert self.queue is None
        self.size = self.base = 0
        self.addresses: VringAddresses | None = None
        self.enabled = False
        self.broken: str | None = None
        self.let_go()

    def let_go(self) -> None:
        """Back to `stopped`: let go of the descriptors."""
        assert self.queue is None
        if self.kick is not None:
            self.kick.close()
            self.kick = None
        self.call.connect(None)
        self.error.connect(None)

    @property
    def whole(self) -> bool:
        """Whether enough is known of it to serve it."""
        return bool(self.kick and self.size and self.addresses) and self.broken is None

    def check_addresses(self, addresses: VringAddresses, memory: GuestMemory) -> None:
        """Raises Refused unless it could lie there, as far as its size is known."""
        self._find(addresses, memory, self.size or 1)

    def find(self, memory: GuestMemory) -> QueueViews:
        """Its parts in the guest's memory; raises Refused unless all lie there as they must."""
        assert self.addresses is not None
        return self._find(self.addresses, memory, self.size)

    def _find(self, addresses: VringAddresses, memory: GuestMemory, size: int) -> QueueViews:
        guest_addrs = []
        for name in ("descriptors_addr", "avail_addr", "used_addr"):
            user_addr = getattr(addresses, name)
            guest_addr = memory.guest_addr(user_addr)
            if guest_addr is None:
                raise Refused(
                    f"vring {self.index}: its {name} {user_addr:#x} lies in no memory region"
                )
            guest_addrs.append(guest_addr)
        try:
            return find_queue(
                memory.address_space,
                size=size,
                descriptors_addr=guest_addrs[0],
                avail_addr=guest_addrs[1],
                used_addr=guest_addrs[2],
            )
        except DriverError as error:
            raise Refused(f"vring {self.index}: {error}") from None

    def open(self, memory: GuestMemory, area: InflightArea | None, features: int) -> VringQueue:
        """The queue, to be served now."""
        assert self.queue is None
        views = self.find(memory)

        def lost() -> bool:
            return memory.lost or (area is not None and area.lost)

        try:
            self.queue = VringQueue(
                views,
                memory.address_space,
                features=features,
                base=self.base,
                inflight=None if area is None else area.queue(self.index, self.size),
                lost=lost,
            )
        except Refused as refusal:
            raise Refused(f"vring {self.index}: {refusal}") from None
        return self.queue

    def close(self) -> None:
        """It is no longer served; it would go on from where it is now."""
        if self.queue is not None:
            self.base = self.queue.base
            self.queue = None

    def check_idle(self, what: str) -> None:
        """Raises Refused while it is served: it cannot `what` then."""
        if self.queue is not None:
            raise Refused(f"vring {self.index} is in use and cannot {what}")
