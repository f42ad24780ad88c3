"""Migrates a guest when its operator asks, and asks it for free page hints if it gives them."""

from collections.abc import Callable
from typing import Any, Final

import numpy.typing as npt
import trio

from devices.balloon.free_page import FreePageHandler
from devices.memory.layout import (
    MIGRATION_REQUESTED,
    MIGRATION_RESUMED,
    MIGRATION_RUNNING,
    MIGRATION_STOPPING,
)
from devices.memory.ram import PAGE_SIZE
from emulator.host.migration import Migration

_POLL_S: Final = 0.001
_CHUNK_S: Final = 0.001  # How long the log is held for one chunk.
_STOP_S_MAX: Final = 5.0  # For every vCPU to stop.


class MigrationTask:
    """`vcpus`: how many must stop."""

    def __init__(
        self,
        migration: Migration,
        vcpus: int,
        free_pages: FreePageHandler | None,
        discard: Callable[[npt.NDArray[Any]], int],
    ) -> None:
        self._migration = migration
        self._vcpus = vcpus
        self._free_pages = free_pages
        self._discard = discard
        # Sending holds the log (QEMU: bitmap_mutex), so a hint waits for the chunk under way.
        self._log = trio.Lock()

    async def skip(self, ranges: npt.NDArray[Any]) -> None:
        """Handle a hint."""
        async with self._log:
            self._migration.skip(ranges)

    async def run(self) -> None:
        """One migration, when it is asked for."""
        record = self._migration.record
        while record["state"] != MIGRATION_REQUESTED:
            await trio.sleep(_POLL_S)
        record["state"] = MIGRATION_RUNNING
        began_s = trio.current_time()
        while not self._migration.fits_downtime(self._migration.begin_round()):
            if record["rounds"] > self._migration.plan.rounds_max:
                break
            self._ask()
            await self._send_all()
            self._stop_asking()
        stopped_s = trio.current_time()
        await self._finish()
        ended_s = trio.current_time()
        record["downtime_ns"] = round((ended_s - stopped_s) * 1e9)
        record["total_ns"] = round((ended_s - began_s) * 1e9)

    async def _finish(self) -> None:
        """Stop the guest, send the rest, and let it go on with the destination's memory."""
        record = self._migration.record
        record["state"] = MIGRATION_STOPPING
        with trio.move_on_after(_STOP_S_MAX):
            while not record["stopped"][: self._vcpus].all():
                await trio.sleep(_POLL_S)
            before = int(record["sent_pages"])
            self._migration.begin_round()
            with trio.CancelScope(shield=True):
                await self._send_all()
                record["final_pages"] = int(record["sent_pages"]) - before
                self._discard(self._migration.switch())
            record["completed"] = 1
        if self._free_pages is not None:
            self._free_pages.done()
        record["state"] = MIGRATION_RESUMED

    async def _send_all(self) -> None:
        """One round, at the link's speed."""
        bandwidth = self._migration.plan.bandwidth_bytes_per_s
        pages_max = max(1, int(bandwidth * _CHUNK_S) // PAGE_SIZE)
        while True:
            async with self._log:
                sent = self._migration.send(pages_max)
                if sent is None:
                    return
                await trio.sleep(sent * PAGE_SIZE / bandwidth)

    def _ask(self) -> None:
        if self._free_pages is not None:
            self._free_pages.request()

    def _stop_asking(self) -> None:
        if self._free_pages is not None:
            self._free_pages.stop()
