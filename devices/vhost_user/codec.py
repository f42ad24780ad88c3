"""Frames to messages and back, without I/O.

`encode` makes a frame.  A `Decoder` is fed what arrives, in pieces of at most `wanted_bytes`, so
that no piece reaches into the next frame and every descriptor belongs to the frame that it came
with; it hands out a `Message` when one is whole.  A frame whose version, size or count of
descriptors is not what the request's form demands (`messages.py`) raises ProtocolError, and its
descriptors are closed.  Values are only read here, not judged: that an index names a queue, and a
region lies in its file, is for the back-end to say.
"""

import os
import struct
from collections.abc import Callable, Iterable
from typing import Final

from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.layout import (
    CONFIG_BYTES_MAX,
    DESCRIPTORS_MAX,
    FLAG_NEED_REPLY,
    FLAG_REPLY,
    MEMORY_REGIONS_MAX,
    PAYLOAD_BYTES_MAX,
    VERSION,
    VERSION_MASK,
    VRING_INDEX_MASK,
    VRING_NO_DESCRIPTOR,
    BackendRequest,
    Request,
)
from devices.vhost_user.messages import (
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

_HEADER: Final = struct.Struct("<III")  # Request, flags, size of the payload.
_WORD: Final = struct.Struct("<Q")
_VRING_STATE: Final = struct.Struct("<II")
_VRING_ADDRESSES: Final = struct.Struct("<IIQQQQ")
_TABLE: Final = struct.Struct("<I4x")
_SLOT: Final = struct.Struct("<8x")
_REGION: Final = struct.Struct("<QQQQ")
_CONFIG: Final = struct.Struct("<III")
_INFLIGHT: Final = struct.Struct("<QQHH4x")  # Padded, as C does it.


def encode(message: Message) -> bytes:
    """Header and payload."""
    payload = _encode_payload(message.payload)
    flags = VERSION | FLAG_REPLY * message.reply | FLAG_NEED_REPLY * message.need_reply
    return _HEADER.pack(message.request, flags, len(payload)) + payload


def _encode_range(r: MemoryRange) -> bytes:
    return _REGION.pack(r.guest_addr, r.size_bytes, r.user_addr, r.mmap_offset)


def _encode_payload(payload: Payload) -> bytes:
    match payload:
        case None:
            return b""
        case Word():
            return _WORD.pack(payload.value)
        case VringState():
            return _VRING_STATE.pack(payload.index, payload.num)
        case VringAddresses():
            return _VRING_ADDRESSES.pack(
                payload.index,
                payload.flags,
                payload.descriptors_addr,
                payload.used_addr,
                payload.avail_addr,
                payload.log_addr,
            )
        case VringDescriptor():
            return _WORD.pack(payload.index | (0 if payload.present else VRING_NO_DESCRIPTOR))
        case MemoryTable():
            ranges = b"".join(map(_encode_range, payload.ranges))
            return _TABLE.pack(len(payload.ranges)) + ranges
        case MemorySlot():
            return _SLOT.pack() + _encode_range(payload.range)
        case Config():
            return _CONFIG.pack(payload.offset, payload.size, payload.flags) + payload.data
        case Inflight():
            return _INFLIGHT.pack(
                payload.mmap_size, payload.mmap_offset, payload.queues, payload.queue_size
            )


def _exact(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    if len(data) != layout.size:
        raise ProtocolError(f"a payload of {len(data)} bytes, not {layout.size}")
    return layout.unpack(data)


def _none(data: bytes) -> None:
    if data:
        raise ProtocolError(f"a payload of {len(data)} bytes, not 0")


def _word(data: bytes) -> Word:
    return Word(*_exact(_WORD, data))


def _vring_state(data: bytes) -> VringState:
    return VringState(*_exact(_VRING_STATE, data))


def _vring_addresses(data: bytes) -> VringAddresses:
    index, flags, descriptors, used, avail, log = _exact(_VRING_ADDRESSES, data)
    return VringAddresses(
        index=index,
        flags=flags,
        descriptors_addr=descriptors,
        used_addr=used,
        avail_addr=avail,
        log_addr=log,
    )


def _vring_descriptor(data: bytes) -> VringDescriptor:
    (value,) = _exact(_WORD, data)
    if value & ~(VRING_INDEX_MASK | VRING_NO_DESCRIPTOR):
        raise ProtocolError(f"a vring's descriptor with the unknown bits {value:#x}")
    return VringDescriptor(value & VRING_INDEX_MASK, not value & VRING_NO_DESCRIPTOR)


def _range(data: bytes) -> MemoryRange:
    guest_addr, size_bytes, user_addr, mmap_offset = _REGION.unpack(data)
    return MemoryRange(
        guest_addr=guest_addr, size_bytes=size_bytes, user_addr=user_addr, mmap_offset=mmap_offset
    )


def _memory_table(data: bytes) -> MemoryTable:
    if len(data) < _TABLE.size:
        raise ProtocolError(f"a memory table of {len(data)} bytes, not {_TABLE.size} or more")
    (count,) = _TABLE.unpack(data[: _TABLE.size])
    slots, rest = divmod(len(data) - _TABLE.size, _REGION.size)
    if rest or not count <= slots <= MEMORY_REGIONS_MAX:
        raise ProtocolError(
            f"a memory table of {len(data)} bytes for {count} regions, of {_REGION.size} bytes each"
        )
    starts = range(_TABLE.size, _TABLE.size + count * _REGION.size, _REGION.size)
    return MemoryTable(tuple(_range(data[at : at + _REGION.size]) for at in starts))


def _memory_slot(data: bytes) -> MemorySlot:
    if len(data) != _SLOT.size + _REGION.size:
        raise ProtocolError(f"a memory slot of {len(data)} bytes, not {_SLOT.size + _REGION.size}")
    return MemorySlot(_range(data[_SLOT.size :]))


def _config(data: bytes) -> Config:
    if len(data) < _CONFIG.size:
        raise ProtocolError(f"a configuration of {len(data)} bytes, not {_CONFIG.size} or more")
    offset, size, flags = _CONFIG.unpack(data[: _CONFIG.size])
    if size != len(data) - _CONFIG.size or size > CONFIG_BYTES_MAX:
        raise ProtocolError(
            f"{len(data) - _CONFIG.size} bytes of configuration, said to be {size} "
            f"(at most {CONFIG_BYTES_MAX})"
        )
    return Config(offset=offset, data=data[_CONFIG.size :], flags=flags)


def _config_or_none(data: bytes) -> Config | None:
    return _config(data) if data else None


def _inflight(data: bytes) -> Inflight:
    mmap_size, mmap_offset, queues, queue_size = _exact(_INFLIGHT, data)
    return Inflight(
        queues=queues, queue_size=queue_size, mmap_size=mmap_size, mmap_offset=mmap_offset
    )


_PayloadOf = Callable[[bytes], Payload]

_REQUESTS: Final[dict[int, _PayloadOf]] = {
    Request.GET_FEATURES: _none,
    Request.SET_FEATURES: _word,
    Request.SET_OWNER: _none,
    Request.RESET_OWNER: _none,
    Request.SET_MEM_TABLE: _memory_table,
    Request.SET_VRING_NUM: _vring_state,
    Request.SET_VRING_ADDR: _vring_addresses,
    Request.SET_VRING_BASE: _vring_state,
    Request.GET_VRING_BASE: _vring_state,
    Request.SET_VRING_KICK: _vring_descriptor,
    Request.SET_VRING_CALL: _vring_descriptor,
    Request.SET_VRING_ERR: _vring_descriptor,
    Request.GET_PROTOCOL_FEATURES: _none,
    Request.SET_PROTOCOL_FEATURES: _word,
    Request.GET_QUEUE_NUM: _none,
    Request.SET_VRING_ENABLE: _vring_state,
    Request.SET_BACKEND_REQ_FD: _none,
    Request.GET_CONFIG: _config,
    Request.SET_CONFIG: _config,
    Request.GET_INFLIGHT_FD: _inflight,
    Request.SET_INFLIGHT_FD: _inflight,
    Request.RESET_DEVICE: _none,
    Request.GET_MAX_MEM_SLOTS: _none,
    Request.ADD_MEM_REG: _memory_slot,
    Request.REM_MEM_REG: _memory_slot,
}
assert set(_REQUESTS) == set(Request)

# Replies that are no acknowledgement.
_REPLIES: Final[dict[int, _PayloadOf]] = {
    Request.GET_VRING_BASE: _vring_state,
    Request.GET_CONFIG: _config_or_none,
    Request.GET_INFLIGHT_FD: _inflight,
}


def _counts_of_request(message: Message) -> tuple[int, ...]:
    """The counts of descriptors that may come with it."""
    payload = message.payload
    if isinstance(payload, MemoryTable):
        return (len(payload.ranges),)
    if isinstance(payload, VringDescriptor):
        return (int(payload.present),)
    if message.request == Request.REM_MEM_REG:
        return (0, 1)
    return (
        int(
            message.request
            in (Request.SET_BACKEND_REQ_FD, Request.SET_INFLIGHT_FD, Request.ADD_MEM_REG)
        ),
    )


Parse = Callable[[int, int, bytes, list[int]], Message]


class Decoder:
    """What arrives on one stream, as messages.

    parse:  makes a message of request, flags, payload and descriptors: `parse_request`,
            `parse_reply` or `parse_backend_request`

    After a ProtocolError there is nothing more to be had: the frames' limits are lost.
    """

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._header = self._payload = b""
        self._size = 0
        self._descriptors: list[int] = []

    @property
    def wanted_bytes(self) -> int:
        """How many bytes the present frame lacks, as far as is known; at least 1."""
        if len(self._header) < _HEADER.size:
            return _HEADER.size - len(self._header)
        return self._size - len(self._payload)

    @property
    def begun(self) -> bool:
        """Whether a part of a frame is here."""
        return bool(self._header)

    def feed(self, data: bytes, descriptors: Iterable[int] = ()) -> Message | None:
        """Take 1 to `wanted_bytes` bytes and the descriptors that came with them, which are ours.

        The message that they complete, or None.
        """
        self._descriptors.extend(descriptors)
        assert 0 < len(data) <= self.wanted_bytes
        try:
            if len(self._header) < _HEADER.size:
                self._header += data
                if len(self._header) == _HEADER.size:
                    self._check_header()
            else:
                self._payload += data
            if len(self._descriptors) > DESCRIPTORS_MAX:
                raise ProtocolError(f"more than {DESCRIPTORS_MAX} descriptors with one message")
            if len(self._header) < _HEADER.size or len(self._payload) < self._size:
                return None
            request, flags, _ = _HEADER.unpack(self._header)
            message = self._parse(request, flags, self._payload, self._descriptors)
        except ProtocolError:
            self.close()
            raise
        self._header = self._payload = b""
        self._descriptors = []
        return message

    def close(self) -> None:
        """Close the descriptors of a frame that will never be whole."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _check_header(self) -> None:
        request, flags, self._size = _HEADER.unpack(self._header)
        if flags & VERSION_MASK != VERSION:
            raise ProtocolError(f"version {flags & VERSION_MASK} of the protocol, not {VERSION}")
        if self._size > PAYLOAD_BYTES_MAX:
            raise ProtocolError(
                f"request {request} with {self._size} bytes of payload; at most "
                f"{PAYLOAD_BYTES_MAX} would work"
            )


def parse_request(request: int, flags: int, payload: bytes, descriptors: list[int]) -> Message:
    """A front-end's request; one that is not known keeps its number and loses its payload."""
    message = Message(request, need_reply=bool(flags & FLAG_NEED_REPLY), descriptors=descriptors)
    if flags & FLAG_REPLY:
        raise ProtocolError(f"{message.name} is a reply, where a request must come")
    if request not in _REQUESTS:
        return message
    try:
        message.payload = _REQUESTS[request](payload)
    except ProtocolError as error:
        raise ProtocolError(f"{message.name}: {error}") from None
    _check_count(message, _counts_of_request(message))
    return message


def parse_reply(request: int, flags: int, payload: bytes, descriptors: list[int]) -> Message:
    """A back-end's reply to a request."""
    message = Message(request, reply=True, descriptors=descriptors)
    if not flags & FLAG_REPLY or flags & FLAG_NEED_REPLY or request not in _REQUESTS:
        raise ProtocolError(f"{message.name} with flags {flags:#x} is no reply")
    try:
        message.payload = _REPLIES.get(request, _word)(payload)
    except ProtocolError as error:
        raise ProtocolError(f"the reply to {message.name}: {error}") from None
    _check_count(message, (int(request == Request.GET_INFLIGHT_FD),))
    return message


def parse_backend_request(
    request: int, flags: int, payload: bytes, descriptors: list[int]
) -> Message:
    """A back-end's request; one that is not known keeps its number and loses its payload."""
    message = Message(request, need_reply=bool(flags & FLAG_NEED_REPLY), descriptors=descriptors)
    if flags & FLAG_REPLY:
        raise ProtocolError("a reply, where a back-end's request must come")
    if request == BackendRequest.CONFIG_CHANGE:
        _none(payload)
        _check_count(message, (0,))
    return message


def _check_count(message: Message, counts: tuple[int, ...]) -> None:
    if len(message.descriptors) not in counts:
        raise ProtocolError(
            f"{message.name} with {len(message.descriptors)} descriptors, not "
            f"{' or '.join(map(str, counts))}"
        )
