"""Bringing up the memory management of a guest of 80 GiB: how long, and how much memory."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

import numpy as np

from devices.memory.region import Region
from emulator.bench.guest import boot_guest, layout_of, memory_of, new_region, require_sound
from emulator.bench.series import Measurement
from emulator.config.guest import GuestConfig
from emulator.guest.boot import init_deferred
from emulator.guest.mm.deferred_kernels import init_next_section
from emulator.measure import metadata_bytes
from emulator.observer import Observer

MEMORY_BYTES: Final = 80 << 30
_REPEATS: Final = 5
_SMALL_BYTES: Final = 64 << 20


def measure_boot(
    names: Sequence[str], observer: Observer, *, memory_bytes: int = MEMORY_BYTES
) -> Mapping[str, Measurement]:
    """`guest.init_80gib_ms` and `guest.metadata_bytes_per_page`."""
    small = GuestConfig(memory_bytes=_SMALL_BYTES, vcpus=1, ram="accounted")
    with new_region(layout_of(small), shared=True) as region:
        boot_guest(small, region)  # Compiled or loaded before it is timed.
        init_next_section(memory_of(region), 0, 1)
    guest = GuestConfig(memory_bytes=memory_bytes, vcpus=1, ram="accounted")
    fresh, rest, resident = [], [], []
    for _ in range(_REPEATS):
        with new_region(layout_of(guest), shared=True) as region:
            fresh.append(_boot_ms(guest, region, deferring=True))
            mm = memory_of(region)
            began_ns = time.perf_counter_ns()
            for _ in init_deferred(mm, 1):
                pass
            rest.append((time.perf_counter_ns() - began_ns) / 1e6)
            metadata = metadata_bytes(region.arrays) / guest.pages
            require_sound(mm)
            for array in region.arrays.values():
                array.view(np.uint8)[:] = 0
            resident.append(_boot_ms(guest, region, deferring=False))
    found = {
        "guest.init_80gib_ms": Measurement(
            tuple(fresh),
            f"until all page records are written {median(rest):.1f} ms more, in the background; "
            f"all at once in memory that is resident already: {median(resident):.2f} ms",
        ),
        "guest.metadata_bytes_per_page": Measurement(
            (round(metadata, 2),),
            f"16 a page record; list heads and pageblocks: {metadata - 16:.4f}",
        ),
    }
    return {name: found[name] for name in names}


def _boot_ms(guest: GuestConfig, region: Region, *, deferring: bool) -> float:
    began_ns = time.perf_counter_ns()
    boot_guest(guest, region, deferring=deferring)
    return (time.perf_counter_ns() - began_ns) / 1e6
