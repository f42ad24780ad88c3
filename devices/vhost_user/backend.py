"""The back-end's half of the vhost-user protocol, without I/O: requests in, effects out.

    with contextlib.closing(backend.receive(message)) as effects:
        for effect in effects:                  each is done before the next one is asked for
            ...
    backend.close()                             when the front-end is gone and no queue is served

A request is *refused* if it is well-formed but cannot be met; nothing has changed then.  With
REPLY_ACK a refusal is answered with 1.  Where it cannot be answered so (the request has a reply of
its own, or no acknowledgement was asked for) it is a ProtocolError: the connection ends, as it does
after an ill-formed frame (`codec.py`).
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from devices.vhost_user.device import Device, Effect, Reply
from devices.vhost_user.errors import ProtocolError, Refused
from devices.vhost_user.guest_memory import GuestMemory
from devices.vhost_user.layout import PROTOCOL_FEATURES_KNOWN, ProtocolFeature, Request
from devices.vhost_user.messages import REPLIED, Message, Word
from devices.vhost_user.requests import HANDLERS
from devices.vhost_user.session import Session

# Requests that exist with a protocol feature only.
_NEEDED: Final = {
    Request.GET_QUEUE_NUM: ProtocolFeature.MQ,
    Request.SET_BACKEND_REQ_FD: ProtocolFeature.BACKEND_REQ,
    Request.GET_CONFIG: ProtocolFeature.CONFIG,
    Request.SET_CONFIG: ProtocolFeature.CONFIG,
    Request.GET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.SET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.RESET_DEVICE: ProtocolFeature.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.ADD_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.REM_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
}

# What may come before SET_OWNER: questions, and what is agreed on about the protocol itself.
_WITHOUT_OWNER: Final = frozenset(
    {
        Request.GET_FEATURES,
        Request.SET_OWNER,
        Request.GET_PROTOCOL_FEATURES,
        Request.SET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_MAX_MEM_SLOTS,
        Request.SET_BACKEND_REQ_FD,
        Request.GET_CONFIG,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatistics:
    """Requests and refusals since the back-end was made; the rest is now."""

    requests: int
    refused: int
    queues_served: int
    queues_broken: int
    memory_bytes: int


class Backend(Session):
    """Serves one front-end: make one for each.

    device:             what is behind it; it is reset when the front-end leaves
    protocol_features:  what is offered
    """

    def __init__(
        self, device: Device, *, protocol_features: ProtocolFeature = PROTOCOL_FEATURES_KNOWN
    ) -> None:
        super().__init__(device, protocol_features)
        self._requests = self._refused = 0

    def receive(self, message: Message) -> Generator[Effect, None, None]:
        """Handle one request; its descriptors are ours.  Raises ProtocolError: hang up, `close`."""
        self._requests += 1
        try:
            yield from self._handle(message)
        except Refused as refusal:
            self._refused += 1
            if not self._to_acknowledge(message):
                raise ProtocolError(f"{message.name}: {refusal}") from None
            yield Reply(Message(message.request, Word(1), reply=True))
        else:
            if self._to_acknowledge(message):
                yield Reply(Message(message.request, Word(0), reply=True))
        finally:
            message.close()

    def notify_config_changed(self) -> bool:
        """Tell the front-end to read the configuration anew; False if it cannot be told."""
        return self.channel is not None and self.channel.notify_config_changed()

    def close(self) -> None:
        """Let go of everything; no queue is served any more.  Once is enough."""
        for vring in self.vrings:
            vring.close()
            vring.reset()
        self.device.reset()
        self.connect_channel(None)
        self.area = None
        self.memory.close()
        self.memory = GuestMemory()

    def statistics(self) -> BackendStatistics:
        return BackendStatistics(
            requests=self._requests,
            refused=self._refused,
            queues_served=sum(vring.queue is not None for vring in self.vrings),
            queues_broken=sum(vring.broken is not None for vring in self.vrings),
            memory_bytes=sum(mapped.range.size_bytes for mapped in self.memory.mapped),
        )

    def validate(self) -> None:
        """Assert the invariants, between two requests."""
        for vring in self.vrings:
            assert vring.queue is None or self.wanted(vring)
            assert vring.queue is None or self.begun
        held = [mapped.region.fd for mapped in self.memory.mapped]
        assert len(set(held)) == len(held)
        assert not self.protocol_features & ~self.offered

    def _handle(self, message: Message) -> Generator[Effect, None, None]:
        handler = HANDLERS.get(message.request)
        if handler is None:
            raise Refused("not supported")
        needed = _NEEDED.get(Request(message.request), ProtocolFeature(0))
        if needed & ~self.protocol_features:
            raise Refused(f"the protocol feature {needed.name} was not negotiated")
        if not self.owned and message.request not in _WITHOUT_OWNER:
            raise Refused("it comes before SET_OWNER")
        yield from handler(self, message.payload, message)

    def _to_acknowledge(self, message: Message) -> bool:
        # Looked up after the handling: SET_PROTOCOL_FEATURES itself may bring it.
        acknowledging = ProtocolFeature.REPLY_ACK in self.protocol_features
        return acknowledging and message.need_reply and message.request not in REPLIED
