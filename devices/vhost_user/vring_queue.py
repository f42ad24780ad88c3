"""The device's half of a queue in a vhost-user guest's memory.

Besides what `DeviceQueue` does, it writes into the in-flight area what it takes and gives back, and
it breaks as soon as the file of a part of the guest's memory is found to have shrunk.
"""

from collections.abc import Callable
from typing import NoReturn

from devices.memory.address_space import AddressSpace
from devices.vhost_user.errors import Refused
from devices.vhost_user.inflight import InflightQueue
from devices.virtio.chain import Chain
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.layout import IDX_MASK, IDX_WORD
from devices.virtio.queue_layout import QueueViews


class VringQueue(DeviceQueue):
    """Goes on where the ring's used index says, which for a device that serves in order is right
    whatever became of the one before.

    base:      the index that the front-end names; it may be ahead of the ring's used index, by
               chains that were taken and not given back, but by no more than the ring holds
    inflight:  this queue's part of the in-flight area; None: there is none
    lost:      whether a file behind the guest's memory has shrunk

    Raises Refused if `base` or the in-flight area does not fit the ring.
    """

    def __init__(
        self,
        views: QueueViews,
        address_space: AddressSpace,
        *,
        features: int,
        base: int,
        inflight: InflightQueue | None,
        lost: Callable[[], bool],
    ) -> None:
        used_idx = int(views.used[IDX_WORD]["word"])
        if inflight is None:
            heads = []
            if (base - used_idx) & IDX_MASK > len(views.descriptors):
                raise Refused(
                    f"a ring of {len(views.descriptors)} entries whose used index is {used_idx} "
                    f"cannot start at {base}"
                )
        else:
            heads = inflight.recover(used_idx)
        self._inflight = inflight
        self._lost = lost
        self._batch: list[int] = []
        super().__init__(views, address_space, features=features, start=used_idx, in_flight=heads)

    @property
    def base(self) -> int:
        """Where a successor must begin, as the front-end will tell it."""
        return self.used_idx if self._inflight is None else self.next_avail_idx

    def pop(self) -> Chain | None:
        """As `DeviceQueue.pop`; the chain is in flight from here on."""
        try:
            chain = super().pop()
        finally:  # What is read then are zeroes, which may well look like a breach.
            if self._lost():
                self._break_for_lost_memory()
        if chain is not None and self._inflight is not None:
            self._inflight.take(chain.head)
        return chain

    def push_used(self, head: int, length: int) -> None:
        """As `DeviceQueue.push_used`."""
        super().push_used(head, length)
        self._batch.append(head)

    def publish(self) -> bool:
        """As `DeviceQueue.publish`; what was pushed is no longer in flight."""
        batch, self._batch = self._batch, []
        if self._inflight is None or not batch:
            wanted = super().publish()
        else:
            self._inflight.begin_batch(batch)
            wanted = super().publish()
            self._inflight.end_batch(batch, self.used_idx)
        if self._lost():
            self._break_for_lost_memory()
        return wanted

    def _break_for_lost_memory(self) -> NoReturn:
        self._break("the file behind the guest's memory was shrunk")
