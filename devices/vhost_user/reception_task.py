"""Who connects to a back-end's socket, until it is known whether that is a guest.

A front-end speaks first, and at once.  So a peer is a guest from its first byte on: one that leaves
without a word (a health check) is none, and one that stays without a word keeps nobody out.
"""

import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from devices.vhost_user.socket_file import Peer, peer_of

VISITORS_MAX: Final = 8  # Connected, and not guests; if there are more, the oldest one has to go.
_SECOND_PEER_S: Final = 1.0  # A guest that is just leaving keeps the next one waiting so long.
_ACCEPT_LATER: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_ACCEPT_LATER_S: Final = 0.1

Guests = trio.MemorySendChannel[tuple[socket.socket, Peer]]


async def receive_visitors(
    listening: socket.socket,
    guests: Guests,
    *,
    refuse: Callable[[Peer], str | None],
    turned_away: Callable[[Peer, str], None],
) -> None:
    """Accept peers and hand over those that are guests, until cancelled; the others are hung up on.

    guests:       takes one at a time; whoever it does not take in time is turned away
    refuse:       says why a peer is not to be served; None: it may be
    turned_away:  told of each that wanted to be served and is not, and why
    """
    listening.setblocking(False)
    accepting = trio.socket.from_stdlib_socket(listening)
    waiting: deque[trio.CancelScope] = deque()

    async def receive(stream: socket.socket, peer: Peer, patience: trio.CancelScope) -> None:
        reason: str | None = None
        with patience:
            reason = await _hand_over(stream, peer, guests)
        if patience.cancelled_caught:
            reason = f"of more than {VISITORS_MAX} that wait it came first"
        elif patience in waiting:
            waiting.remove(patience)
        if reason is not None:
            turned_away(peer, reason)

    async with trio.open_nursery() as visitors:
        while True:
            try:
                accepted, _ = await accepting.accept()
            except OSError as error:
                if error.errno not in _ACCEPT_LATER:
                    raise
                await trio.sleep(_ACCEPT_LATER_S)
                continue
            stream = socket.socket(fileno=accepted.detach())
            peer = peer_of(stream)
            if (reason := refuse(peer)) is not None:
                stream.close()
                turned_away(peer, reason)
                continue
            if len(waiting) == VISITORS_MAX:
                waiting.popleft().cancel()
            waiting.append(trio.CancelScope())
            visitors.start_soon(receive, stream, peer, waiting[-1])


async def _hand_over(stream: socket.socket, peer: Peer, guests: Guests) -> str | None:
    """Once it speaks, it is the receiver's; why it is to be turned away, None if it is not."""
    try:
        if not await _speaks(stream):
            stream.close()
            return None
        with trio.move_on_after(_SECOND_PEER_S):
            await guests.send((stream, peer))
            return None
    except BaseException:
        stream.close()
        raise
    stream.close()
    return "another guest is attached"


async def _speaks(stream: socket.socket) -> bool:
    """Wait for its first byte, which stays to be read; False if it leaves without a word."""
    stream.setblocking(False)
    try:
        return bool(await trio.socket.from_stdlib_socket(stream).recv(1, socket.MSG_PEEK))
    except ConnectionError:
        return False
