"""A guest with files, and what a test does with them, over plain arrays."""

from typing import Any

import numpy as np

from devices.memory.ram import RamView
from emulator.guest.mm.layout import (
    LRU_ACTIVE,
    LRU_INACTIVE,
    NO_SLOT_PAGE,
    SLOT_DIRTY,
    WRITE_BACK,
)
from emulator.guest.mm.page_cache_kernels import drop_slots, unmap_slots
from emulator.guest.mm.views import GuestMemory
from emulator.guest.mm.write_back_kernels import begin_write_back, end_write_back
from tests.support import cache_kernels
from tests.support.guest import Guest, ZoneOf

FOR_EVER_NS = 1 << 62


class Files:
    """Files of so many pages each; read-ahead is 4 pages.  `mm`, `ram`: those of another view."""

    def __init__(self, guest: Guest, mm: GuestMemory | None = None, ram: Any = None) -> None:
        self.guest = guest
        self.mm = guest.mm if mm is None else mm
        self.ram: RamView = guest.ram if ram is None else ram
        self.kernel = guest.cpus
        self._pfns = np.zeros(64, np.uint32)

    def read(self, file: int, index: int, count: int = 1, *, mapped: bool = False) -> int:
        """By vCPU 0; how many pages."""
        return int(cache_kernels.read(self.mm, self.ram, 0, file, index, count, mapped, self._pfns))

    def write(self, file: int, index: int, count: int = 1) -> int:
        """By vCPU 0; how many pages."""
        return int(cache_kernels.write(self.mm, self.ram, 0, file, index, count, self._pfns))

    def write_back(self, pages: int = 64, until_ns: int = FOR_EVER_NS) -> list[int]:
        """One batch from begin to end; its slots."""
        batch = np.zeros(pages, WRITE_BACK)
        count = int(begin_write_back(self.mm, self.ram, self.kernel, batch, until_ns))
        end_write_back(self.mm, self.kernel, batch, count)
        return [int(slot) for slot in batch["slot"][:count]]

    def drop(self) -> int:
        """Drop caches; how many pages."""
        return int(drop_slots(self.mm, 0, 0, len(self.mm.cache.slots)))

    def unmap(self) -> None:
        """Unmap everything."""
        unmap_slots(self.mm, 0, 0, len(self.mm.cache.slots))

    @property
    def inactive(self) -> list[int]:
        """Slots on the inactive list, from head to tail."""
        return self.guest.lru_list(LRU_INACTIVE)

    @property
    def active(self) -> list[int]:
        """Slots on the active list, from head to tail."""
        return self.guest.lru_list(LRU_ACTIVE)

    @property
    def control(self) -> Any:
        """PAGE_CACHE[0]."""
        return self.mm.cache.control[0]

    def dirty(self) -> set[int]:
        """Slots that are dirty."""
        return set(np.flatnonzero(self.mm.cache.slots["flags"] & SLOT_DIRTY).tolist())

    def cached(self) -> set[int]:
        """Slots that are cached."""
        return set(np.flatnonzero(self.mm.cache.slots["pfn"] != NO_SLOT_PAGE).tolist())

    def violations(self) -> int:
        """Over all actors."""
        return int(self.mm.actors["violations"].sum())


def guest_with_files(*files: int, pages: int = 1024, cpus: int = 1, high: int = 64) -> Files:
    """A zone of so many pages, watermarks of 0, per-CPU lists of one page at a time."""
    guest = Guest(ZoneOf(pages=pages), cpus=cpus, files=files)
    guest.set_pcp(batch=1, high=high)
    return Files(guest)
