"""The vhost-user protocol's numbers, and the layout of its messages and shared memory.

Source: QEMU's docs/interop/vhost-user.rst; the sizes of payloads also from libvhost-user, whose
structures are what is sent.  Messages are in the byte order of the machine, which both of ours,
x86-64 and arm64, have little-endian.

    header     request, flags, size of the payload      12 bytes
    payload    as `messages.py` says, by request        0 .. PAYLOAD_BYTES_MAX bytes
    beside     descriptors, in SCM_RIGHTS               0 .. DESCRIPTORS_MAX

What the two sides share, and who writes it:

    guest memory    front-end and its guest; the back-end writes used rings, and discards
    rings in it     as VIRTIO 1.3 section 2.7 says; addresses in them are the guest's, those in
                    SET_VRING_ADDR the front-end's own
    in-flight area  made and written by the back-end; kept by the front-end, which zeroes it when
                    its guest restarts; read by the next back-end only
    kick            written by the front-end or its guest
    call, error     written by the back-end

Every descriptor received is held by one of message, memory, vring and session, and closed by it.
"""

from enum import IntEnum, IntFlag
from typing import Final

import numpy as np

HEADER: Final = np.dtype([("request", "<u4"), ("flags", "<u4"), ("size", "<u4")])
assert HEADER.itemsize == 12

VERSION: Final = 1
VERSION_MASK: Final = 0b11
FLAG_REPLY: Final = 1 << 2
FLAG_NEED_REPLY: Final = 1 << 3


class Request(IntEnum):
    """What a front-end asks of a back-end: the requests that a balloon needs."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38


class BackendRequest(IntEnum):
    """What a back-end asks of a front-end, on a channel of its own."""

    CONFIG_CHANGE = 2


class ProtocolFeature(IntFlag):
    """Protocol features that are known here, as bits of their word."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15


PROTOCOL_FEATURES_KNOWN: Final = ProtocolFeature(sum(ProtocolFeature))

F_PROTOCOL_FEATURES: Final = 30  # A feature bit, of the transport.

MEMORY_REGIONS_MAX: Final = 8  # in one SET_MEM_TABLE
MEMORY_SLOTS_MAX: Final = 32  # with ADD_MEM_REG; each holds a descriptor and a mapping
MEMORY_BYTES_MAX: Final = 1 << 40  # of all regions: a sparse file may claim what nobody has
DESCRIPTORS_MAX: Final = MEMORY_REGIONS_MAX
CONFIG_BYTES_MAX: Final = 256
QUEUES_MAX: Final = 256  # a vring's number has 8 bits in SET_VRING_KICK
PAYLOAD_BYTES_MAX: Final = max(8 + 32 * MEMORY_REGIONS_MAX, 12 + CONFIG_BYTES_MAX)

VRING_INDEX_MASK: Final = 0xFF
VRING_NO_DESCRIPTOR: Final = 1 << 8

CONFIG_OF_DRIVER: Final = 0  # SET_CONFIG: the driver writes
CONFIG_OF_MIGRATION: Final = 1  # SET_CONFIG: a migration restores

# The in-flight area: for each queue this header and a row for each descriptor, in all rounded up to
# INFLIGHT_ALIGN bytes.  A front-end keeps it for the time when its back-end is gone.
INFLIGHT_VERSION: Final = 1
INFLIGHT_ALIGN: Final = 64

INFLIGHT_HEADER: Final = np.dtype(
    [
        ("features", "<u8"),
        ("version", "<u2"),  # 0: nothing was tracked yet
        ("desc_num", "<u2"),
        ("last_batch_head", "<u2"),  # of the batch that was given back last
        ("used_idx", "<u2"),  # of the ring, when that batch was done
    ]
)
assert INFLIGHT_HEADER.itemsize == 16

INFLIGHT_DESC: Final = np.dtype(
    [
        ("inflight", "u1"),  # the chain with this head was taken and not given back
        ("padding", "u1", (5,)),
        ("next", "<u2"),  # the next one of the same batch
        ("counter", "<u8"),  # in the order in which they were taken
    ]
)
assert INFLIGHT_DESC.itemsize == 16


def inflight_queue_bytes(queue_size: int) -> int:
    """Bytes of the in-flight area that one queue takes."""
    rows = INFLIGHT_HEADER.itemsize + INFLIGHT_DESC.itemsize * queue_size
    return -(-rows // INFLIGHT_ALIGN) * INFLIGHT_ALIGN
