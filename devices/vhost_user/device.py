"""What a back-end needs of the device that it serves, and what it asks to be done.

A device is any object with the methods of `Device`; the balloon is one.  The back-end itself does
nothing that takes time: it hands out `Effect`s, in order, each to be done before the next one is
asked for.
"""

from dataclasses import dataclass
from typing import Protocol

from devices.memory.address_space import AddressSpace
from devices.vhost_user.messages import Message
from devices.vhost_user.notifier import CallLine, DescriptorNotifier
from devices.vhost_user.vring_queue import VringQueue
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.notifier import Notifier


class Device(Protocol):
    """A virtio device behind a back-end.  It outlives its guests, one after another."""

    @property
    def features(self) -> int:
        """The feature bits that it offers, those of the ring and VERSION_1 among them."""

    @property
    def queues_max(self) -> int:
        """How many queues it can have, 1 to 256."""

    def read_config(self, offset: int, size: int) -> bytes | None:
        """`size` bytes of the configuration space, as the driver may see them now.

        None if they are not all inside it.
        """

    def write_config(self, offset: int, data: bytes, *, migration: bool) -> bool:
        """Write there, as the driver does; False, with nothing written, where it must not.

        migration:  a migration restores what the device itself had written
        """

    def begin(self, memory: AddressSpace, features: int) -> None:
        """A driver has accepted `features`; its queues will be served from here on.

        Called again without a reset in between, if a driver was bound anew.
        """

    def replace_memory(self, memory: AddressSpace) -> None:
        """The guest has gained or lost memory since `begin`; no queue is served meanwhile.

        The files of the old memory are closed after this returns.
        """

    async def serve_queue(
        self, index: int, queue: DeviceQueue, *, kick: Notifier, call: Notifier
    ) -> None:
        """Serve one queue until cancelled, in order: chains are given back as they were taken.

        A request that a cancellation finds is completed first; a chain that is held for long (the
        statistics' one) is forgotten: it comes again with the next `queue` of this index.  Ends
        by itself only with DriverError, if the driver broke the protocol, or OSError, if its
        memory cannot be worked on (or groups of these); then the queue is dead until it is set up
        anew.
        """

    def reset(self) -> None:
        """The driver is gone, or has asked for it: back to the beginning.  No queue is served."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """Send this to the front-end."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """Begin to serve a queue, in the background: `Device.serve_queue`.

    Whoever does it tells `Backend.queue_died` if that ends by itself.
    """

    index: int
    queue: VringQueue
    kick: DescriptorNotifier
    call: CallLine


@dataclass(frozen=True, slots=True)
class Stop:
    """Serve it no more; done when nobody touches the queue or its buffers any longer."""

    index: int


Effect = Reply | Start | Stop
