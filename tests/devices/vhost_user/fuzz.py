"""Fuzz a back-end over real sockets: python -m tests.devices.vhost_user.fuzz --seed N --seconds S

Episode after episode, a fuzzer plays a guest that goes wrong; after each, no descriptor may be
left and no queue be served, and every so often a well-behaved guest must find all in order.  An
episode follows from its own seed, which is printed if it fails: `--seed N --episodes 1` repeats it.
"""

import argparse
import array
import contextlib
import math
import socket
import time
from collections import Counter

import trio

from devices.vhost_user.transport import Detached, Event, QueueStopped, Server
from tests.devices.vhost_user.frames import Fuzzer
from tests.devices.vhost_user.machines import (
    Guest,
    ServedBalloon,
    close_forgotten,
    open_descriptors,
)

_EPISODE_S = 20.0
_GUEST_EVERY = 16


async def _speak(stream: socket.socket, fuzzer: Fuzzer, device: ServedBalloon) -> None:
    """Say a sequence to the back-end, and wait for its end, whatever it answers."""
    speaking = trio.socket.from_stdlib_socket(stream)
    with contextlib.suppress(ConnectionError):
        for frame in fuzzer.sequence():
            rights = array.array("i", frame.descriptors).tobytes()
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
            if frame.data:
                await speaking.sendmsg([frame.data], beside)
            if device.served:
                fuzzer.disturb_ring()
                with contextlib.suppress(BlockingIOError):
                    fuzzer.pair[1].setblocking(False)
                    fuzzer.pair[1].send(b"12345678")
            await trio.lowlevel.checkpoint()
        speaking.shutdown(socket.SHUT_WR)
        while await speaking.recv(4096):  # Descriptors that come are dropped by the system.
            pass
    speaking.close()


async def episode(seed: int, seen: Counter[str]) -> None:
    """One guest that goes wrong; AssertionError if anything is left of it."""
    before = open_descriptors()
    device = ServedBalloon()
    events: list[Event] = []
    server = Server(device, observe=events.append, message_s=0.05)
    fuzzer = Fuzzer(seed)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with trio.fail_after(_EPISODE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            nursery.start_soon(_speak, ours, fuzzer, device)
    fuzzer.close()
    assert device.served == [] and device.resets >= 1
    ended = events[-1]
    assert isinstance(ended, Detached)
    seen["hung up" if ended.reason else "left"] += 1
    seen["queues broken"] += sum(
        isinstance(e, QueueStopped) and e.reason is not None for e in events
    )
    assert open_descriptors() == before


async def well_behaved() -> None:
    """A guest that does everything right finds all in order."""
    device = ServedBalloon()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    guest = Guest(ours)
    with trio.fail_after(_EPISODE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Server(device).serve_stream, theirs)
            await guest.attach()
            await guest.report(100, 101)
            guest.close()
    assert len(device.discarded) == 2


async def fuzz(
    seed: int, *, seconds: float = math.inf, episodes: int | None = None
) -> Counter[str]:
    """Until the time is up or so many episodes are done; how often what happened."""
    seen: Counter[str] = Counter()
    close_forgotten()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at and seen["episodes"] != episodes:
        at = seed + seen["episodes"]
        try:
            await episode(at, seen)
            if seen["episodes"] % _GUEST_EVERY == 0:
                await well_behaved()
        except BaseException:
            print(f"the episode of seed {at} failed")
            raise
        seen["episodes"] += 1
    return seen


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--episodes", type=int)
    given = parser.parse_args()
    seen = trio.run(_fuzz, given.seed, given.seconds, given.episodes)
    print(", ".join(f"{count} {what}" for what, count in sorted(seen.items())))


async def _fuzz(seed: int, seconds: float, episodes: int | None) -> Counter[str]:
    return await fuzz(seed, seconds=seconds, episodes=episodes)


if __name__ == "__main__":
    main()
