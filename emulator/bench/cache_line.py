"""How far apart two CPUs are: the round trip of a cache line between them.

On a virtual machine its host may move them from one run to the next, which changes every figure
of two processes by up to 7 times: so the round trip stands beside such a figure.
"""

import os
import threading
from typing import Final

import numpy as np

from emulator.bench.kernels import bounce
from emulator.bench.layout import MEETING

_ROUNDS: Final = 20_000
_LIMIT_NS: Final = 2_000_000_000
_FAR_NS: Final = 300  # Near is 110 to 170 ns and far 510 to 540 ns on the reference machine.


def two_cpus() -> tuple[int, int] | None:
    """Two CPUs that this process may use, far apart in their numbering; None with only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return None if len(allowed) < 2 else (allowed[0], allowed[len(allowed) // 2])


def round_trip_ns() -> float | None:
    """ns for a cache line to go to another CPU and back, mean of 20 000; None with one CPU only."""
    cpus = two_cpus()
    if cpus is None:
        return None
    meeting = np.zeros(1, MEETING)
    bounce(np.zeros(1, MEETING), 0, 0, 0)  # Compiled or loaded before it is timed.
    found = [0, 0]

    def play(me: int) -> None:
        os.sched_setaffinity(0, {cpus[me]})  # Of this thread alone.
        found[me] = int(bounce(meeting, me, _ROUNDS, _LIMIT_NS))

    players = [threading.Thread(target=play, args=(me,)) for me in (0, 1)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    # The second one to begin has waited for nobody.
    shorter = min(found)
    return None if shorter < 0 else shorter / _ROUNDS


def distance_of(round_trip: float | None) -> str | None:
    """In words, as on the reference machine."""
    if round_trip is None:
        return None
    return "near" if round_trip < _FAR_NS else "far"


def describe(before: float | None, after: float | None) -> str:
    """A note: the round trip around a measurement of two processes."""
    if before is None or after is None:
        return "one CPU only"
    return (
        f"cache-line round trip {before:.0f} ns ({distance_of(before)}) before, "
        f"{after:.0f} ns ({distance_of(after)}) after"
    )
