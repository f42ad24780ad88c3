"""Messages and descriptors over a unix stream socket: both sides of the vhost-user protocol.

    Channel      messages with their descriptors, one stream, either way
    Server       a back-end for one guest after another
    Connection   a front-end's requests, and what its back-end tells it

No peer can make us wait for ever: between two messages it may be silent as long as it likes, but a
message that has begun must be whole within `message_s`, and one that we send must be taken.  Bytes
are read so that none of the next message is, and every descriptor is closed by whoever has it when
the connection ends.
"""

import array
import contextlib
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import trio

from devices.memory.bus_error import install
from devices.vhost_user.backend import Backend
from devices.vhost_user.codec import (
    Decoder,
    Parse,
    encode,
    parse_backend_request,
    parse_reply,
    parse_request,
)
from devices.vhost_user.device import Device, Effect, Reply, Start, Stop
from devices.vhost_user.errors import ProtocolError
from devices.vhost_user.frontend import Dialogue, expects_reply
from devices.vhost_user.layout import (
    DESCRIPTORS_MAX,
    PROTOCOL_FEATURES_KNOWN,
    BackendRequest,
    ProtocolFeature,
)
from devices.vhost_user.messages import Message, Word
from devices.vhost_user.reception_task import receive_visitors
from devices.vhost_user.socket_file import Peer, SocketFile, peer_of
from devices.virtio.errors import DriverError

T = TypeVar("T")

MESSAGE_S: Final = 10.0  # A front-end is a program, not a guest: it does not sleep in a message.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


class Channel:
    """One stream of messages each way over `stream`, which becomes ours.

    parse:  what comes in, as `Decoder` takes it
    """

    def __init__(self, stream: socket.socket, parse: Parse, *, message_s: float) -> None:
        stream.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(stream)
        self._decoder = Decoder(parse)
        self._message_s = message_s

    async def receive(self) -> Message | None:
        """The next message, with its descriptors, which are the caller's; None: the peer has left.

        Raises ProtocolError for a frame that is ill-formed, or not whole in time or at the end.
        """
        due_at = math.inf
        while True:
            with trio.move_on_at(due_at) as scope:
                data, descriptors = await self._receive_piece()
            if scope.cancelled_caught:
                raise ProtocolError(f"a message was not whole within {self._message_s:g} s")
            if not data:
                if self._decoder.begun:
                    raise ProtocolError("the peer left in the middle of a message")
                return None
            message = self._decoder.feed(data, descriptors)
            if message is not None:
                return message
            if due_at == math.inf:
                due_at = trio.current_time() + self._message_s

    async def send(self, message: Message) -> None:
        """Send a message with its descriptors, which stay the caller's.

        Raises ProtocolError if the peer does not take it in time, or has left.
        """
        left = memoryview(encode(message))
        descriptors = message.descriptors
        with trio.move_on_after(self._message_s) as scope:
            while left:
                rights = array.array("i", descriptors).tobytes()
                beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
                try:
                    sent = await self._socket.sendmsg([left], beside)
                except ConnectionError:
                    raise ProtocolError("the peer left before its reply") from None
                left, descriptors = left[sent:], []
        if scope.cancelled_caught:
            raise ProtocolError(f"the peer took no message within {self._message_s:g} s")

    def close(self) -> None:
        """Close the socket, and the descriptors of a message that is not whole."""
        self._decoder.close()
        self._socket.close()

    async def _receive_piece(self) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, flags, _ = await self._socket.recvmsg(
                self._decoder.wanted_bytes, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return b"", []
        descriptors = array.array("i")
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(rights) - len(rights) % descriptors.itemsize
                descriptors.frombytes(rights[:whole])
        if flags & socket.MSG_CTRUNC:
            for fd in descriptors:
                os.close(fd)
            raise ProtocolError(f"more than {DESCRIPTORS_MAX} descriptors with one message")
        return data, list(descriptors)


@dataclass(frozen=True, slots=True)
class Attached:
    """A front-end has connected and spoken."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Detached:
    """It has left; `reason`: why we hung up, None if it left by itself."""

    peer: Peer
    reason: str | None


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A peer that wanted to be served was not."""

    peer: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class QueueStarted:
    """A queue is served."""

    index: int


@dataclass(frozen=True, slots=True)
class QueueStopped:
    """A queue is no longer served; `reason`: why it broke, None if it was stopped."""

    index: int
    reason: str | None


Event = Attached | Detached | TurnedAway | QueueStarted | QueueStopped


@dataclass(slots=True, eq=False)
class _Service:
    """One queue that is being served."""

    scope: trio.CancelScope
    ended: trio.Event


class Server:
    """Serves `device` to one guest after another, one at a time.

    observe:   called with each Event
    user:      the number of the user whose peers are served; None: our own
    any_user:  serve peers of all users
    backend:   the guest's that is attached; None while there is none
    """

    def __init__(
        self,
        device: Device,
        *,
        observe: Callable[[Event], None] = lambda event: None,
        user: int | None = None,
        any_user: bool = False,
        protocol_features: ProtocolFeature = PROTOCOL_FEATURES_KNOWN,
        message_s: float = MESSAGE_S,
    ) -> None:
        install()  # Before a guest waits for its answer.
        self.backend: Backend | None = None
        self._device = device
        self._observe = observe
        self._user = os.geteuid() if user is None else user
        self._any_user = any_user
        self._protocol_features = protocol_features
        self._message_s = message_s

    async def serve(self, socket_file: SocketFile, *, guests_max: int | None = None) -> None:
        """Serve until cancelled, or until so many guests have come and gone.

        A peer is a guest from its first byte on; one that leaves without a word (a health check)
        is none.  As soon as the last guest has come, `socket_file` is closed, so that whoever comes
        later hears of it at once, instead of waiting for an answer that nobody would give.
        """
        arriving, guests = trio.open_memory_channel[tuple[socket.socket, Peer]](0)
        reception = trio.CancelScope()

        async def receive() -> None:
            with reception:
                await receive_visitors(
                    socket_file.listening,
                    arriving,
                    refuse=self._refuse,
                    turned_away=lambda peer, reason: self._observe(TurnedAway(peer, reason)),
                )

        come = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            while guests_max is None or come < guests_max:
                stream, peer = await guests.receive()
                come += 1
                if come == guests_max:
                    reception.cancel()  # Nobody waits for the socket from here on.
                    socket_file.close()
                await self._serve_guest(stream, peer)

    async def serve_stream(self, stream: socket.socket) -> None:
        """Serve the one guest at the other end of a connected socket, which becomes ours."""
        await self._serve_guest(stream, peer_of(stream))

    def _refuse(self, peer: Peer) -> str | None:
        if peer.uid == self._user or self._any_user:
            return None
        return f"user {peer.uid} is not user {self._user}, whom alone we serve"

    async def _serve_guest(self, stream: socket.socket, peer: Peer) -> None:
        channel = Channel(stream, parse_request, message_s=self._message_s)
        self.backend = backend = Backend(self._device, protocol_features=self._protocol_features)
        self._observe(Attached(peer))
        reason: str | None = None
        try:
            async with trio.open_nursery() as services:
                try:
                    await _Conversation(backend, channel, services, self._observe).hold()
                except ProtocolError as error:
                    reason = str(error)
                services.cancel_scope.cancel()
        finally:
            channel.close()
            backend.close()
            self.backend = None
            self._observe(Detached(peer, reason))


class _Conversation:
    """What a back-end and its front-end have to say to each other."""

    def __init__(
        self,
        backend: Backend,
        channel: Channel,
        services: trio.Nursery,
        observe: Callable[[Event], None],
    ) -> None:
        self._backend = backend
        self._channel = channel
        self._services = services
        self._observe = observe
        self._running: dict[int, _Service] = {}

    async def hold(self) -> None:
        """Until the peer leaves; raises ProtocolError if we must hang up."""
        while (message := await self._channel.receive()) is not None:
            with contextlib.closing(self._backend.receive(message)) as effects:
                for effect in effects:
                    await self._do(effect)

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Reply(message):
                await self._channel.send(message)
            case Start(index=index):
                service = _Service(trio.CancelScope(), trio.Event())
                self._running[index] = service
                self._services.start_soon(self._serve_queue, effect, service)
            case Stop(index):
                service = self._running.pop(index)
                service.scope.cancel()
                await service.ended.wait()

    async def _serve_queue(self, start: Start, service: _Service) -> None:
        self._observe(QueueStarted(start.index))
        reason: str | None = None
        try:
            with service.scope:
                await self._backend.device.serve_queue(
                    start.index, start.queue, kick=start.kick, call=start.call
                )
        except* (DriverError, OSError) as errors:  # A device may serve it with several tasks.
            reason = _first_reason(errors)
            self._backend.queue_died(start.index, reason)
        finally:
            service.ended.set()
            self._observe(QueueStopped(start.index, reason))


def _first_reason(errors: BaseExceptionGroup[Any]) -> str:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found)


class Connection:
    """A front-end's connection to a back-end; `stream` becomes ours."""

    def __init__(self, stream: socket.socket, *, message_s: float = MESSAGE_S) -> None:
        self._channel = Channel(stream, parse_reply, message_s=message_s)
        self._message_s = message_s

    async def hold(self, dialogue: Dialogue[T]) -> T:
        """Send what the dialogue asks for, give it the replies, and return its result.

        Raises Refused if the back-end refused something, ProtocolError if it broke the protocol,
        does not answer in time, or has left.
        """
        with contextlib.closing(dialogue):
            try:
                message = next(dialogue)
                while True:
                    await self._channel.send(message)
                    reply = await self._reply_to(message) if expects_reply(message) else None
                    message = dialogue.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result

    async def _reply_to(self, message: Message) -> Message:
        with trio.move_on_after(self._message_s) as scope:
            reply = await self._channel.receive()
        if scope.cancelled_caught:
            raise ProtocolError(f"no reply to {message.name} within {self._message_s:g} s")
        if reply is None:
            raise ProtocolError(f"the back-end left before its reply to {message.name}")
        if reply.request != message.request:
            reply.close()
            raise ProtocolError(f"a reply to {reply.name}, not to {message.name}")
        return reply

    def close(self) -> None:
        """Leave."""
        self._channel.close()


async def watch_backend(
    stream: socket.socket,
    *,
    config_changed: Callable[[], None],
    message_s: float = MESSAGE_S,
) -> None:
    """Call `config_changed` whenever the back-end says so, until it has left.

    stream:  our end of the channel whose other end went to the back-end; becomes ours

    Raises ProtocolError for what is no request of a back-end; one that is not known is answered
    with 1, if it wants an answer.
    """
    channel = Channel(stream, parse_backend_request, message_s=message_s)
    try:
        while (message := await channel.receive()) is not None:
            message.close()
            known = message.request == BackendRequest.CONFIG_CHANGE
            if known:
                config_changed()
            if message.need_reply:
                answer = Word(0 if known else 1)
                await channel.send(Message(message.request, answer, reply=True))
    finally:
        channel.close()
