"""A front-end that speaks to a `Backend` without a socket, and does what it asks at once."""

import os
import struct
from typing import Any

from devices.vhost_user.backend import Backend
from devices.vhost_user.codec import Decoder, encode, parse_reply, parse_request
from devices.vhost_user.device import Reply, Start, Stop
from devices.vhost_user.layout import F_PROTOCOL_FEATURES, ProtocolFeature, Request
from devices.vhost_user.messages import (
    MemoryTable,
    Message,
    Payload,
    VringDescriptor,
    VringState,
    Word,
)
from devices.vhost_user.vring_queue import VringQueue
from tests.devices.vhost_user.machines import (
    FEATURES,
    QUEUE_SIZE,
    REPORTING_INDEX,
    GuestMemory,
    ServedBalloon,
)

BIT_30 = 1 << F_PROTOCOL_FEATURES
ACK = ProtocolFeature.REPLY_ACK


def frame(request: int, payload: bytes = b"", *, flags: int = 1, size: int | None = None) -> bytes:
    """A raw frame; `size` may lie."""
    return struct.pack("<III", request, flags, len(payload) if size is None else size) + payload


def decode(decoder: Decoder, data: bytes, descriptors: list[int]) -> Message:
    """The one message in `data`; the descriptors come with its first byte."""
    message = None
    while data:
        count = decoder.wanted_bytes
        message = decoder.feed(data[:count], descriptors)
        data, descriptors = data[count:], []
    assert message is not None
    return message


class Talk:
    """A back-end with a balloon behind it; every message goes through the codec, both ways."""

    def __init__(self, device: ServedBalloon | None = None, **options: Any) -> None:
        self.device = ServedBalloon() if device is None else device
        self.backend = Backend(self.device, **options)
        self.queues: dict[int, VringQueue] = {}  # Those that are served.
        self.effects: list[str] = []

    def send(
        self,
        request: int,
        payload: Payload = None,
        *descriptors: int,
        need_reply: bool = False,
    ) -> list[Message]:
        """The replies; the descriptors are lent: duplicates of them are sent."""
        raw = encode(Message(request, payload, need_reply=need_reply))
        return self.send_raw(raw, *descriptors)

    def send_raw(self, raw: bytes, *descriptors: int) -> list[Message]:
        sent = [os.dup(fd) for fd in descriptors]
        message = decode(Decoder(parse_request), raw, sent)
        replies = []
        for effect in self.backend.receive(message):
            match effect:
                case Reply(reply):
                    lent = [os.dup(fd) for fd in reply.descriptors]
                    replies.append(decode(Decoder(parse_reply), encode(reply), lent))
                    self.effects.append("reply")
                case Start(index=index, queue=queue):
                    assert index not in self.queues
                    self.queues[index] = queue
                    self.effects.append(f"start {index}")
                case Stop(index):
                    del self.queues[index]
                    self.effects.append(f"stop {index}")
        self.backend.validate()
        assert message.descriptors == []
        return replies

    def ask(self, request: int, payload: Payload = None, *descriptors: int) -> Payload:
        """The payload of the one reply."""
        (reply,) = self.send(request, payload, *descriptors)
        assert reply.request == request and reply.reply and not reply.need_reply
        return reply.payload

    def refused(self, request: int, payload: Payload = None, *descriptors: int) -> bool:
        """Whether it is answered with a refusal, instead of 0; REPLY_ACK is negotiated."""
        (reply,) = self.send(request, payload, *descriptors, need_reply=True)
        assert isinstance(reply.payload, Word)
        return reply.payload.value != 0

    def negotiate(
        self, features: int = FEATURES, protocol: ProtocolFeature = ProtocolFeature.REPLY_ACK
    ) -> None:
        self.send(Request.SET_OWNER)
        self.send(Request.SET_PROTOCOL_FEATURES, Word(int(protocol)))
        self.send(Request.SET_FEATURES, Word(features | BIT_30))

    def set_memory(self, *memories: GuestMemory) -> None:
        table = MemoryTable(tuple(memory.range for memory in memories))
        self.send(Request.SET_MEM_TABLE, table, *(memory.fd for memory in memories))

    def start(self, memory: GuestMemory, index: int = REPORTING_INDEX, *, base: int = 0) -> None:
        kick = os.eventfd(0)
        self.send(Request.SET_VRING_NUM, VringState(index, QUEUE_SIZE))
        self.send(Request.SET_VRING_BASE, VringState(index, base))
        self.send(Request.SET_VRING_ADDR, memory.addresses(index))
        self.send(Request.SET_VRING_KICK, VringDescriptor(index), kick)
        self.send(Request.SET_VRING_ENABLE, VringState(index, 1))
        os.close(kick)

    def close(self) -> None:
        self.queues.clear()
        self.backend.close()
