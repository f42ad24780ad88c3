"""The swap of a host for all its guests, for either launcher."""

from collections.abc import Sequence

import trio

from emulator.host.swap import Swap
from emulator.host.swap_task import SwapTask
from emulator.machine import Machine, Wires


def start_swap(nursery: trio.Nursery, guests: Sequence[tuple[Machine, Wires]]) -> None:
    """Start what keeps a host within its memory; nothing if it has no swap."""
    host = guests[0][0].scenario.host
    if host.swap_bytes is None or host.memory_bytes is None:
        return
    swap = Swap(
        [machine.ram for machine, _ in guests],
        [machine.host for machine, _ in guests],
        memory_bytes=host.memory_bytes,
        swap_bytes=host.swap_bytes,
    )
    reliefs = [
        wires[f"swap.{actor}"]
        for machine, wires in guests
        for actor in range(machine.ram.swap_actors)
    ]
    task = SwapTask(swap, reliefs, write_bytes_per_s=host.swap_write_bytes_per_s)
    nursery.start_soon(task.run, [wires["pressure"] for _, wires in guests])
