"""What a back-end knows of one front-end, and how its vrings follow: without I/O.

A change that touches a vring ends in `settle`, which has it served, or no longer, as its state
demands; a change to the memory goes through `paused`, so that no vring is served meanwhile.

Invariants:
    a vring is served  =>  it is started, enabled and whole, and `features` were accepted
    every descriptor received is held by exactly one of: message, memory, vring, channel; or closed
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from devices.vhost_user.device import Device, Effect, Start, Stop
from devices.vhost_user.errors import Refused
from devices.vhost_user.guest_memory import GuestMemory
from devices.vhost_user.inflight import InflightArea
from devices.vhost_user.layout import F_PROTOCOL_FEATURES, QUEUES_MAX, ProtocolFeature
from devices.vhost_user.notifier import BackendChannel
from devices.vhost_user.vring import Vring


class Session:
    """One front-end's session.

    features:           what the driver has accepted; None: nothing yet
    protocol_features:  what the front-end has accepted of those `offered`
    owned, begun:       SET_OWNER came; the device was told to begin
    """

    def __init__(self, device: Device, offered: ProtocolFeature) -> None:
        if not 1 <= device.queues_max <= QUEUES_MAX:
            raise ValueError(f"a device of {device.queues_max} queues; 1 to {QUEUES_MAX} work")
        self.device: Final = device
        self.offered: Final = offered
        self.memory = GuestMemory()
        self.vrings: Final = [Vring(index) for index in range(device.queues_max)]
        self.features: int | None = None
        self.protocol_features = ProtocolFeature(0)
        self.owned = self.begun = False
        self.area: InflightArea | None = None
        self.channel: BackendChannel | None = None

    @property
    def serving(self) -> bool:
        """Whether any vring is served."""
        return any(vring.queue is not None for vring in self.vrings)

    @property
    def enabling(self) -> bool:
        """Whether vrings are enabled one by one; without bit 30 they all are, always."""
        return bool((self.features or 0) >> F_PROTOCOL_FEATURES & 1)

    def vring(self, index: int) -> Vring:
        """Vring number `index`; raises Refused if the device has no such queue."""
        if index >= len(self.vrings):
            raise Refused(f"vring {index}, but there are {len(self.vrings)}")
        return self.vrings[index]

    def wanted(self, vring: Vring) -> bool:
        """Whether it is to be served."""
        return self.features is not None and vring.whole and (vring.enabled or not self.enabling)

    def settle(self, vring: Vring) -> Iterator[Effect]:
        """Have it served exactly if it is to be; raises Refused if that cannot be."""
        if not self.wanted(vring):
            yield from self.stop(vring)
        elif vring.queue is None:
            assert self.features is not None and vring.kick is not None
            queue = vring.open(self.memory, self.area, self.features)
            if not self.begun:
                self.device.begin(self.memory.address_space, self.features)
                self.begun = True
            yield Start(index=vring.index, queue=queue, kick=vring.kick, call=vring.call)

    def stop(self, vring: Vring) -> Iterator[Effect]:
        """Have it served no longer."""
        if vring.queue is not None:
            yield Stop(vring.index)
            vring.close()

    def change(self, vring: Vring, **fields: Any) -> Iterator[Effect]:
        """Set these of its fields and settle it; with Refused, they are what they were."""
        before = {name: getattr(vring, name) for name in fields}
        for name, value in fields.items():
            setattr(vring, name, value)
        try:
            yield from self.settle(vring)
        except Refused:
            for name, value in before.items():
                setattr(vring, name, value)
            raise

    def paused(self, change: Callable[[], None]) -> Iterator[Effect]:
        """Make a change while no vring is served, then have those served that are to be."""
        for vring in self.vrings:
            yield from self.stop(vring)
        change()
        for vring in self.vrings:
            try:
                yield from self.settle(vring)
            except Refused as refusal:  # No longer as it was when the change was found good.
                self.queue_died(vring.index, str(refusal))

    def queue_died(self, index: int, reason: str) -> None:
        """A queue's service ended by itself: it stays dead until it is set up anew."""
        vring = self.vrings[index]
        vring.close()
        vring.broken = reason
        vring.error.notify()

    def connect_channel(self, channel: BackendChannel | None) -> None:
        """Talk to the front-end on this channel from now on."""
        if self.channel is not None:
            self.channel.close()
        self.channel = channel
