"""Valid and mutated sequences of frames, from a seed: what a fuzzer says to a back-end.

A sequence follows a well-behaved guest from the beginning; then frames are left out, repeated,
swapped, and changed: values, sizes, flags, descriptors.
"""

import os
import random
import socket
from dataclasses import dataclass, field, replace

from devices.vhost_user.codec import encode
from devices.vhost_user.layout import Request
from devices.vhost_user.messages import (
    Config,
    Inflight,
    MemorySlot,
    MemoryTable,
    Message,
    Payload,
    VringDescriptor,
    VringState,
    Word,
)
from tests.devices.vhost_user.machines import FEATURES, QUEUE_SIZE, USER_ADDR, GuestMemory
from tests.devices.vhost_user.talk import BIT_30

EXTREME = (
    0,
    1,
    2,
    7,
    255,
    4095,
    4096,
    65535,
    65536,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
)


@dataclass
class Frame:
    """Bytes and the descriptors beside them."""

    data: bytes
    descriptors: list[int] = field(default_factory=list)


class Fuzzer:
    """Makes sequences; its descriptors are lent to them until `close`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.memory = GuestMemory()
        self.kick, self.call = os.eventfd(0), os.eventfd(0)
        self.pair = socket.socketpair()
        self.pipe = os.pipe()
        self.empty = os.memfd_create("empty")
        self.folder = os.open("/proc", os.O_PATH)

    def close(self) -> None:
        self.memory.close()
        for end in self.pair:
            end.close()
        for fd in (self.kick, self.call, *self.pipe, self.empty, self.folder):
            os.close(fd)

    @property
    def descriptors(self) -> list[int]:
        """Of every kind."""
        sockets = [end.fileno() for end in self.pair]
        files = [self.memory.fd, self.empty, self.folder]
        return [*files, self.kick, self.call, *self.pipe, *sockets]

    def sequence(self) -> list[Frame]:
        """A guest from SET_OWNER on, mutated."""
        frames = [self._frame(*step) for step in self._guest()]
        rate = self.random.choice((0, 0.02, 0.1))
        for _ in range(self.random.choice((0, 0, 1, 2, 8))):
            self._disturb(frames)
        return [self._mutated(f) if self.random.random() < rate else f for f in frames]

    def _guest(self) -> list[tuple[int, Payload, list[int]]]:
        memory, kick, call = self.memory, self.kick, self.call
        table = MemoryTable((memory.range,))
        far = replace(memory.range, guest_addr=1 << 40, user_addr=1 << 20)
        steps: list[tuple[int, Payload, list[int]]] = [
            (Request.GET_FEATURES, None, []),
            (Request.SET_OWNER, None, []),
            (Request.GET_PROTOCOL_FEATURES, None, []),
            (Request.SET_PROTOCOL_FEATURES, Word(0xB229), []),
            (Request.SET_BACKEND_REQ_FD, None, [self.pair[0].fileno()]),
            (Request.GET_QUEUE_NUM, None, []),
            (Request.GET_CONFIG, Config(offset=0, data=bytes(16)), []),
            (Request.SET_FEATURES, Word(FEATURES | BIT_30), []),
            (Request.SET_MEM_TABLE, table, [memory.fd]),
            (Request.GET_INFLIGHT_FD, Inflight(queues=5, queue_size=QUEUE_SIZE), []),
        ]
        for index in range(5):
            steps += [
                (Request.SET_VRING_CALL, VringDescriptor(index), [call]),
                (Request.SET_VRING_NUM, VringState(index, QUEUE_SIZE), []),
                (Request.SET_VRING_BASE, VringState(index, 0), []),
                (Request.SET_VRING_ADDR, memory.addresses(index), []),
                (Request.SET_VRING_KICK, VringDescriptor(index), [kick]),
                (Request.SET_VRING_ENABLE, VringState(index, 1), []),
            ]
        steps += [
            (Request.SET_CONFIG, Config(offset=4, data=b"1234"), []),
            (Request.ADD_MEM_REG, MemorySlot(far), [memory.fd]),
            (Request.REM_MEM_REG, MemorySlot(far), []),
            (Request.SET_VRING_ENABLE, VringState(1, 0), []),
            (Request.SET_MEM_TABLE, table, [memory.fd]),
            (Request.GET_VRING_BASE, VringState(2, 0), []),
            (Request.RESET_OWNER, None, []),
            (Request.RESET_DEVICE, None, []),
        ]
        return steps

    def _frame(self, request: int, payload: Payload, descriptors: list[int]) -> Frame:
        need_reply = self.random.random() < 0.7
        return Frame(encode(Message(request, payload, need_reply=need_reply)), descriptors)

    def _disturb(self, frames: list[Frame]) -> None:
        """Leave one out, say it again, or say it elsewhere."""
        at = self.random.randrange(len(frames))
        kind = self.random.randrange(3)
        frame = frames[at] if kind == 1 else frames.pop(at)
        if kind:
            frames.insert(self.random.randrange(len(frames) + 1), frame)

    def _mutated(self, frame: Frame) -> Frame:
        """The same with something wrong."""
        data, fds = bytearray(frame.data), list(frame.descriptors)
        kind = self.random.randrange(6)
        if kind == 0:  # Another request.
            data[0] = self.random.randrange(45)
        elif kind == 1:  # Other flags.
            data[4] = self.random.randrange(16)
        elif kind == 2 and len(data) > 12:  # Another value in the payload, aligned.
            at = 12 + 4 * self.random.randrange((len(data) - 12) // 4)
            width = min(len(data) - at, self.random.choice((4, 8)))
            value = self.random.choice((*EXTREME, USER_ADDR, self.random.getrandbits(64)))
            data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif kind == 3:  # Another size, with bytes to match or without.
            data[8:12] = self.random.choice(EXTREME[:-2]).to_bytes(4, "little")
        elif kind == 4:  # Other descriptors.
            fds = self.random.choices(self.descriptors, k=self.random.randrange(11))
        elif self.random.random() < 0.2:  # A part of it.
            del data[self.random.randrange(len(data)) :]
        return Frame(bytes(data), fds)

    def disturb_ring(self) -> None:
        """What a hostile guest does to its own queue."""
        words = self.memory.ram[: self.memory.layout.size_bytes].view("<u2")
        for _ in range(self.random.randrange(6)):
            words[self.random.randrange(len(words))] = self.random.choice(EXTREME[:8])
        if self.random.random() < 0.1:
            self.memory.queue.initialize()
