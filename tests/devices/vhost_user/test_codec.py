"""Frames: sizes, counts of descriptors, and pieces."""

import os
import struct
from typing import Any

import pytest

from devices.vhost_user.codec import (
    Decoder,
    encode,
    parse_backend_request,
    parse_reply,
    parse_request,
)
from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.layout import DESCRIPTORS_MAX, PAYLOAD_BYTES_MAX, Request
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
from tests.devices.vhost_user.machines import no_leak
from tests.devices.vhost_user.talk import decode, frame

RANGE = MemoryRange(guest_addr=1 << 63, size_bytes=2, user_addr=3, mmap_offset=4)
ADDRESSES = VringAddresses(
    index=7, descriptors_addr=1, used_addr=2, avail_addr=3, flags=4, log_addr=(1 << 64) - 1
)

# Each request with a payload of its form, the bytes of that, and the counts that are good.
FORMS: dict[Request, tuple[Payload, int, tuple[int, ...]]] = {
    Request.GET_FEATURES: (None, 0, (0,)),
    Request.SET_FEATURES: (Word(1 << 63), 8, (0,)),
    Request.SET_OWNER: (None, 0, (0,)),
    Request.RESET_OWNER: (None, 0, (0,)),
    Request.SET_MEM_TABLE: (MemoryTable((RANGE, RANGE)), 72, (2,)),
    Request.SET_VRING_NUM: (VringState(1, 256), 8, (0,)),
    Request.SET_VRING_ADDR: (ADDRESSES, 40, (0,)),
    Request.SET_VRING_BASE: (VringState(1, 65535), 8, (0,)),
    Request.GET_VRING_BASE: (VringState(1, 0), 8, (0,)),
    Request.SET_VRING_KICK: (VringDescriptor(255), 8, (1,)),
    Request.SET_VRING_CALL: (VringDescriptor(2, False), 8, (0,)),
    Request.SET_VRING_ERR: (VringDescriptor(0), 8, (1,)),
    Request.GET_PROTOCOL_FEATURES: (None, 0, (0,)),
    Request.SET_PROTOCOL_FEATURES: (Word(0), 8, (0,)),
    Request.GET_QUEUE_NUM: (None, 0, (0,)),
    Request.SET_VRING_ENABLE: (VringState(1, 1), 8, (0,)),
    Request.SET_BACKEND_REQ_FD: (None, 0, (1,)),
    Request.GET_CONFIG: (Config(offset=0, data=bytes(12)), 24, (0,)),
    Request.SET_CONFIG: (Config(offset=4, data=b"1234", flags=1), 16, (0,)),
    Request.GET_INFLIGHT_FD: (Inflight(queues=2, queue_size=64), 24, (0,)),
    Request.SET_INFLIGHT_FD: (
        Inflight(queues=2, queue_size=64, mmap_size=1 << 40, mmap_offset=5),
        24,
        (1,),
    ),
    Request.RESET_DEVICE: (None, 0, (0,)),
    Request.GET_MAX_MEM_SLOTS: (None, 0, (0,)),
    Request.ADD_MEM_REG: (MemorySlot(RANGE), 40, (1,)),
    Request.REM_MEM_REG: (MemorySlot(RANGE), 40, (0, 1)),
}


def descriptors(count: int) -> list[int]:
    return [os.eventfd(0) for _ in range(count)]


def test_every_request_has_a_form() -> None:
    assert set(FORMS) == set(Request)


@pytest.mark.parametrize("request_", FORMS, ids=lambda r: r.name)
@pytest.mark.parametrize("need_reply", [False, True])
def test_a_request_there_and_back(request_: Request, need_reply: bool) -> None:
    payload, size, counts = FORMS[request_]
    raw = encode(Message(request_, payload, need_reply=need_reply))
    assert raw[:12] == struct.pack("<III", request_, 9 if need_reply else 1, size)
    for count in counts:
        with no_leak():
            message = decode(Decoder(parse_request), raw, descriptors(count))
            assert (message.request, message.payload) == (request_, payload)
            assert message.need_reply == need_reply and not message.reply
            assert len(message.descriptors) == count
            message.close()


@pytest.mark.parametrize("request_", FORMS, ids=lambda r: r.name)
@pytest.mark.parametrize("count", range(DESCRIPTORS_MAX + 1))
def test_another_count_of_descriptors_is_an_error(request_: Request, count: int) -> None:
    payload, _, counts = FORMS[request_]
    if count in counts:
        return
    with no_leak(), pytest.raises(ProtocolError, match=f"{request_.name} with {count} desc"):
        decode(Decoder(parse_request), encode(Message(request_, payload)), descriptors(count))


@pytest.mark.parametrize("request_", FORMS, ids=lambda r: r.name)
@pytest.mark.parametrize("change", [-1, 1, 8])
def test_another_size_is_an_error(request_: Request, change: int) -> None:
    payload, size, counts = FORMS[request_]
    raw = encode(Message(request_, payload))[12:]
    if size + change < 0:
        return
    raw = raw[: size + change] if change < 0 else raw + bytes(change)
    with no_leak(), pytest.raises(ProtocolError, match=request_.name):
        decode(Decoder(parse_request), frame(request_, raw), descriptors(counts[0]))


def test_a_message_may_come_byte_by_byte_and_its_descriptors_with_any() -> None:
    raw = encode(Message(Request.SET_MEM_TABLE, MemoryTable((RANGE, RANGE))))
    decoder = Decoder(parse_request)
    for _ in range(2):
        for at in range(len(raw) - 1):
            assert decoder.begun == (at > 0)
            assert decoder.feed(raw[at : at + 1], descriptors(at in (0, 50))) is None
        message = decoder.feed(raw[-1:])
        assert message is not None and not decoder.begun
        assert len(message.descriptors) == 2
        message.close()


def test_descriptors_of_a_part_are_closed() -> None:
    with no_leak():
        decoder = Decoder(parse_request)
        decoder.feed(b"\1", descriptors(3))
        decoder.close()


def test_more_descriptors_than_any_message_has() -> None:
    with no_leak():
        decoder = Decoder(parse_request)
        decoder.feed(b"\1", descriptors(5))
        with pytest.raises(ProtocolError, match="more than 8 descriptors"):
            decoder.feed(b"\0", descriptors(4))


@pytest.mark.parametrize("used", [0, 1, 2])
def test_user_mode_linux_sends_two_slots_whatever_it_uses(used: int) -> None:
    table = MemoryTable((RANGE,) * used)
    raw = encode(Message(Request.SET_MEM_TABLE, table))[12:].ljust(72, b"\xff")
    message = decode(Decoder(parse_request), frame(Request.SET_MEM_TABLE, raw), descriptors(used))
    assert message.payload == table
    message.close()


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (frame(5, struct.pack("<II", 9, 0) + bytes(32 * 8)), "for 9 regions"),
        (frame(5, struct.pack("<II", 2, 0) + bytes(32)), "for 2 regions"),
        (frame(5, struct.pack("<II", 0xFFFFFFFF, 0)), "for 4294967295 regions"),
        (frame(24, struct.pack("<III", 0, 0xFFFFFFFF, 0)), "said to be 4294967295"),
        (frame(24, struct.pack("<III", 0, 4, 0)), "0 bytes of configuration, said to be 4"),
        (frame(25, struct.pack("<III", 0, 4, 0) + bytes(8)), "said to be 4"),
        (frame(12, struct.pack("<Q", 0x200)), "unknown bits 0x200"),
        (frame(1, flags=0), "version 0"),
        (frame(1, flags=2), "version 2"),
        (frame(1, flags=5), "is a reply"),
        (frame(1, size=PAYLOAD_BYTES_MAX + 1), f"at most {PAYLOAD_BYTES_MAX}"),
        (frame(1, size=0xFFFFFFFF), "4294967295 bytes"),
    ],
)
def test_what_is_ill_formed(raw: bytes, error: str) -> None:
    with pytest.raises(ProtocolError, match=error):
        decode(Decoder(parse_request), raw, [])


def test_an_unknown_request_is_read_over() -> None:
    message = decode(Decoder(parse_request), frame(99, bytes(200)), descriptors(2))
    assert (message.request, message.payload, message.name) == (99, None, "request 99")
    message.close()


@pytest.mark.parametrize(
    ("request_", "payload", "count"),
    [
        (Request.GET_FEATURES, Word(5), 0),
        (Request.SET_OWNER, Word(0), 0),
        (Request.GET_VRING_BASE, VringState(3, 9), 0),
        (Request.GET_CONFIG, Config(offset=0, data=bytes(8)), 0),
        (Request.GET_CONFIG, None, 0),
        (Request.GET_INFLIGHT_FD, Inflight(queues=1, queue_size=8, mmap_size=192), 1),
    ],
)
def test_replies(request_: Request, payload: Payload, count: int) -> None:
    raw = encode(Message(request_, payload, reply=True))
    assert raw[4:8] == b"\5\0\0\0"  # Linux accepts exactly this.
    message = decode(Decoder(parse_reply), raw, descriptors(count))
    assert message.payload == payload and message.reply
    message.close()
    with no_leak(), pytest.raises(ProtocolError, match="descriptors"):
        decode(Decoder(parse_reply), raw, descriptors(1 - count))


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (frame(1, bytes(8), flags=1), "no reply"),
        (frame(1, bytes(8), flags=13), "no reply"),
        (frame(77, bytes(8), flags=5), "no reply"),
        (frame(1, bytes(4), flags=5), "4 bytes, not 8"),
        (frame(11, bytes(12), flags=5), "12 bytes, not 8"),
    ],
)
def test_what_is_no_reply(raw: bytes, error: str) -> None:
    with pytest.raises(ProtocolError, match=error):
        decode(Decoder(parse_reply), raw, [])


def test_a_back_ends_requests() -> None:
    message = decode(Decoder(parse_backend_request), frame(2, flags=9), [])
    assert message.request == 2 and message.need_reply
    assert decode(Decoder(parse_backend_request), frame(4, bytes(8)), []).payload is None
    broken: list[Any] = [frame(2, bytes(8)), frame(2, flags=5)]
    for raw in broken:
        with pytest.raises(ProtocolError):
            decode(Decoder(parse_backend_request), raw, [])
