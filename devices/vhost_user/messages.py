"""The messages of the vhost-user protocol: what they carry, and how many descriptors come along.

Each request has one form: a payload and a count of descriptors; each reply has another.  `codec.py`
makes messages of frames and frames of messages.

    request                                 payload             descriptors    reply
    GET_FEATURES, GET_PROTOCOL_FEATURES     none                0              Word
    GET_QUEUE_NUM, GET_MAX_MEM_SLOTS        none                0              Word
    SET_FEATURES, SET_PROTOCOL_FEATURES     Word                0
    SET_OWNER, RESET_OWNER, RESET_DEVICE    none                0
    SET_MEM_TABLE                           MemoryTable         one a region
    ADD_MEM_REG                             MemorySlot          1
    REM_MEM_REG                             MemorySlot          0, or 1 (unused)
    SET_VRING_NUM, _BASE, _ENABLE           VringState          0
    GET_VRING_BASE                          VringState          0              VringState
    SET_VRING_ADDR                          VringAddresses      0
    SET_VRING_KICK, _CALL, _ERR             VringDescriptor     1, or 0 if it says so
    SET_BACKEND_REQ_FD                      none                1
    GET_CONFIG                              Config              0              Config, or none
    SET_CONFIG                              Config              0
    GET_INFLIGHT_FD                         Inflight            0              Inflight, and 1
    SET_INFLIGHT_FD                         Inflight            1

A request without a reply of its own is acknowledged with a Word, 0 or not, if it asks for that and
REPLY_ACK was negotiated.  User-Mode Linux sends SET_MEM_TABLE with unused slots behind those in
use; a table may be longer than its count says, by whole slots.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from devices.vhost_user.layout import Request


@dataclass(frozen=True, slots=True)
class Word:
    """One number of 64 bits: features, a count, or 0 for success."""

    value: int


@dataclass(frozen=True, slots=True)
class VringState:
    """A number that belongs to a vring: its size, an index into it, or whether it is enabled."""

    index: int
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VringAddresses:
    """Where the parts of a vring lie, as *user addresses* of the front-end's process."""

    index: int
    descriptors_addr: int
    used_addr: int
    avail_addr: int
    flags: int = 0
    log_addr: int = 0


@dataclass(frozen=True, slots=True)
class VringDescriptor:
    """For which vring a kick, call or error descriptor is, and whether there is one at all."""

    index: int
    present: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRange:
    """Guest memory as a front-end describes it: where it is to the guest, to itself, and in a file.

    The file's descriptor comes beside the message; all four are bytes.
    """

    guest_addr: int
    size_bytes: int
    user_addr: int
    mmap_offset: int


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """All of a guest's memory."""

    ranges: tuple[MemoryRange, ...]


@dataclass(frozen=True, slots=True)
class MemorySlot:
    """One range, added or removed."""

    range: MemoryRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A part of the configuration space; `data` has `size` bytes, whatever they mean."""

    offset: int
    data: bytes
    flags: int = 0

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflight:
    """The in-flight area: where it lies in its file, and for which queues it is.

    In a request for it only `queues` and `queue_size` (entries of each) count.
    """

    queues: int
    queue_size: int
    mmap_size: int = 0
    mmap_offset: int = 0


Payload = (
    Word
    | VringState
    | VringAddresses
    | VringDescriptor
    | MemoryTable
    | MemorySlot
    | Config
    | Inflight
    | None
)


@dataclass(slots=True, eq=False)
class Message:
    """One message, either way.

    request:      a Request, a BackendRequest, or the number of one that is not known
    descriptors:  of a message received: ours, each to be taken or closed; of one to be sent: lent
                  until it is sent, and never closed by the sending
    """

    request: int
    payload: Payload = None
    need_reply: bool = False
    reply: bool = False
    descriptors: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The request's name, for errors."""
        known = {int(r): r.name for r in Request}
        return known.get(int(self.request), f"request {int(self.request)}")

    def take_descriptor(self) -> int:
        """The next descriptor: whoever takes it must close it."""
        return self.descriptors.pop(0)

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


# Requests with a reply of their own; the others may ask for an acknowledgement.
REPLIED: Final = frozenset(
    {
        Request.GET_FEATURES,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_VRING_BASE,
        Request.GET_CONFIG,
        Request.GET_INFLIGHT_FD,
    }
)
