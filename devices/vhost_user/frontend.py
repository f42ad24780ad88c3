"""The front-end's half of the vhost-user protocol, without I/O.

Every step is a *dialogue*: a generator that yields the request to send and is sent the reply to it,
or None where there is none.  `transport.Connection.hold` drives them:

    frontend = Frontend()
    await connection.hold(frontend.negotiate(features=wanted))
    await connection.hold(frontend.connect_channel(fd))
    await connection.hold(frontend.set_memory([(described, fd), ...]))
    await connection.hold(frontend.set_up_vring(0, size=256, addresses=..., kick=fd, call=fd))

The order is that of QEMU and Linux: owner, features, protocol features; the accepted features;
memory; vrings.  Descriptors are lent for the sending and stay the caller's.  Refused says that the
back-end refused; without REPLY_ACK it cannot, and leaves.
"""

from collections.abc import Generator, Sequence
from typing import Final, TypeVar

from devices.vhost_user.errors import ProtocolError, Refused
from devices.vhost_user.layout import (
    F_PROTOCOL_FEATURES,
    PROTOCOL_FEATURES_KNOWN,
    ProtocolFeature,
    Request,
)
from devices.vhost_user.messages import (
    REPLIED,
    Config,
    Inflight,
    MemoryRange,
    MemorySlot,
    MemoryTable,
    Message,
    Payload,
    VringAddresses,
    VringDescriptor,
    VringState,
    Word,
)

T = TypeVar("T")
P = TypeVar("P", Word, VringState, Inflight)
Dialogue = Generator[Message, Message | None, T]

_TRANSPORT_FEATURES: Final = 1 << F_PROTOCOL_FEATURES


def expects_reply(message: Message) -> bool:
    """Whether the back-end answers this request."""
    return message.need_reply or message.request in REPLIED


class Frontend:
    """One connection's front-end.

    features:           the feature bits that both sides have accepted
    protocol_features:  the protocol features that both sides have
    """

    def __init__(self) -> None:
        self.features = 0
        self.protocol_features = ProtocolFeature(0)

    def negotiate(
        self, *, features: int, protocol_features: ProtocolFeature = PROTOCOL_FEATURES_KNOWN
    ) -> Dialogue[int]:
        """Become the owner and agree on what both sides know; returns the features.

        features:  what the driver would accept
        """
        yield from self._tell(Request.SET_OWNER)
        offered = (yield from self._ask(Request.GET_FEATURES, None, Word)).value
        if offered & _TRANSPORT_FEATURES:
            found = yield from self._ask(Request.GET_PROTOCOL_FEATURES, None, Word)
            self.protocol_features = protocol_features & ProtocolFeature(
                found.value & int(PROTOCOL_FEATURES_KNOWN)
            )
            yield from self._tell(Request.SET_PROTOCOL_FEATURES, Word(int(self.protocol_features)))
        accepted = offered & (features | _TRANSPORT_FEATURES)
        yield from self.accept_features(accepted)
        return accepted

    def accept_features(self, features: int) -> Dialogue[None]:
        """Tell what the driver accepts of the features offered; again, if one is bound anew."""
        yield from self._tell(Request.SET_FEATURES, Word(features))
        self.features = features

    def count_queues(self) -> Dialogue[int]:
        """How many queues the device has at most (MQ)."""
        return (yield from self._ask(Request.GET_QUEUE_NUM, None, Word)).value

    def connect_channel(self, fd: int) -> Dialogue[None]:
        """Give the back-end the end of a socket pair, to tell us of changes (BACKEND_REQ)."""
        yield from self._tell(Request.SET_BACKEND_REQ_FD, None, fd)

    def set_memory(self, ranges: Sequence[tuple[MemoryRange, int]]) -> Dialogue[None]:
        """All of the guest's memory, at most 8 ranges, each with its file's descriptor."""
        table = MemoryTable(tuple(described for described, _ in ranges))
        yield from self._tell(Request.SET_MEM_TABLE, table, *(fd for _, fd in ranges))

    def count_memory_slots(self) -> Dialogue[int]:
        """How many ranges `add_memory` can add up to (CONFIGURE_MEM_SLOTS)."""
        return (yield from self._ask(Request.GET_MAX_MEM_SLOTS, None, Word)).value

    def add_memory(self, described: MemoryRange, fd: int) -> Dialogue[None]:
        """One more range (CONFIGURE_MEM_SLOTS)."""
        yield from self._tell(Request.ADD_MEM_REG, MemorySlot(described), fd)

    def remove_memory(self, described: MemoryRange) -> Dialogue[None]:
        """One range less (CONFIGURE_MEM_SLOTS)."""
        yield from self._tell(Request.REM_MEM_REG, MemorySlot(described))

    def set_up_vring(
        self,
        addresses: VringAddresses,
        *,
        size: int,
        kick: int,
        call: int | None,
        error: int | None = None,
        base: int = 0,
    ) -> Dialogue[None]:
        """Set up vring `addresses.index` and have it served.

        size, base:         entries, and the index to begin at
        kick, call, error:  descriptors; without a call, the driver must look by itself
        """
        index = addresses.index
        if call is not None:
            yield from self._tell(Request.SET_VRING_CALL, VringDescriptor(index), call)
        if error is not None:
            yield from self._tell(Request.SET_VRING_ERR, VringDescriptor(index), error)
        yield from self._tell(Request.SET_VRING_NUM, VringState(index, size))
        yield from self._tell(Request.SET_VRING_BASE, VringState(index, base))
        yield from self._tell(Request.SET_VRING_ADDR, addresses)
        yield from self._tell(Request.SET_VRING_KICK, VringDescriptor(index), kick)
        if self.features & _TRANSPORT_FEATURES:
            yield from self.enable_vring(index, True)

    def enable_vring(self, index: int, enabled: bool) -> Dialogue[None]:
        """Have a vring served, or let it rest."""
        yield from self._tell(Request.SET_VRING_ENABLE, VringState(index, int(enabled)))

    def stop_vring(self, index: int) -> Dialogue[int]:
        """Stop a vring: the back-end touches it no more; returns where it would go on."""
        found = yield from self._ask(Request.GET_VRING_BASE, VringState(index, 0), VringState)
        if found.index != index:
            raise ProtocolError(f"the base of vring {found.index}, not of {index}")
        return found.num

    def read_config(self, offset: int, size: int) -> Dialogue[bytes]:
        """A part of the device's configuration (CONFIG); Refused if there is no such part."""
        asked = Config(offset=offset, data=bytes(size))
        reply = yield from self._exchange(Message(Request.GET_CONFIG, asked))
        if reply.payload is None:
            raise Refused(f"the configuration has no {size} bytes at {offset}")
        if not isinstance(reply.payload, Config) or reply.payload.size != size:
            raise ProtocolError("a configuration of another size than was asked for")
        return reply.payload.data

    def write_config(self, offset: int, data: bytes) -> Dialogue[None]:
        """Write into the device's configuration, as the driver (CONFIG)."""
        yield from self._tell(Request.SET_CONFIG, Config(offset=offset, data=data))

    def get_inflight(self, *, queues: int, queue_size: int) -> Dialogue[tuple[Inflight, int]]:
        """A new in-flight area (INFLIGHT_SHMFD); its descriptor becomes the caller's."""
        wanted = Inflight(queues=queues, queue_size=queue_size)
        reply = yield from self._exchange(Message(Request.GET_INFLIGHT_FD, wanted))
        assert isinstance(reply.payload, Inflight)
        return reply.payload, reply.take_descriptor()

    def set_inflight(self, area: Inflight, fd: int) -> Dialogue[None]:
        """Have the back-end use this area, before it serves a vring (INFLIGHT_SHMFD)."""
        yield from self._tell(Request.SET_INFLIGHT_FD, area, fd)

    def reset_device(self) -> Dialogue[None]:
        """Stop all vrings and reset the device (RESET_DEVICE)."""
        yield from self._tell(Request.RESET_DEVICE)
        self.features = 0

    def _tell(self, request: Request, payload: Payload = None, *fds: int) -> Dialogue[None]:
        """Make a request without a reply of its own, and see that it was not refused."""
        acknowledged = ProtocolFeature.REPLY_ACK in self.protocol_features
        message = Message(request, payload, need_reply=acknowledged, descriptors=list(fds))
        reply = yield message
        if acknowledged:
            assert reply is not None
            if reply.payload != Word(0):
                raise Refused(f"the back-end refused {message.name}")

    def _ask(self, request: Request, payload: Payload, kind: type[P]) -> Dialogue[P]:
        reply = yield from self._exchange(Message(request, payload))
        assert isinstance(reply.payload, kind)  # `parse_reply` makes no other.
        return reply.payload

    def _exchange(self, message: Message) -> Dialogue[Message]:
        reply = yield message
        assert reply is not None
        return reply
