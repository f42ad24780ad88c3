"""Pre-copy live migration of one guest, without I/O: a dirty log, rounds, and the switch.

As QEMU does it (migration/ram.c): a first round sends all memory, each later one what was dirtied
meanwhile, until the rest fits into the downtime that is allowed; then the guest stops, the rest is
sent, and it goes on at the destination.  A hint clears a page's bit, and the page is not sent.
Since 2021 QEMU clears it in the log itself, not in its copy of the log alone: whatever was written
to the page before the hint was handled is then lost.

Here the destination takes the guest's place in the same memory: at the switch every page becomes
what the destination has of it, and one that was never sent is gone.  What was lost is found by the
guest's vCPUs, when they verify what they wrote.
"""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.ram import PAGE_SIZE, GuestRam
from emulator.host.discard import RAM_REGION
from emulator.host.migration_kernels import clear_dirty, count_dirty, resume_with, send_dirty

_NOT_A_WORD: Final = -1  # No page holds it: in the beginning all are dirty.


class Plan(Protocol):
    """How a workload wants its guest migrated."""

    @property
    def bandwidth_bytes_per_s(self) -> float: ...
    @property
    def downtime_s(self) -> float: ...
    @property
    def rounds_max(self) -> int: ...


class Migration:
    """One migration; `record`: MIGRATION[1], where it is counted."""

    def __init__(self, ram: GuestRam, record: npt.NDArray[Any], plan: Plan) -> None:
        view = ram.view()
        self.record: Final = record[0]
        self.plan: Final = plan
        self._words, self._shift = view.words, view.shift
        pages = ram.size_bytes // PAGE_SIZE
        self._log = np.full(pages, _NOT_A_WORD, np.int64)
        self._copied = np.zeros(pages, np.int64)
        self._at = 0

    def begin_round(self) -> int:
        """Look at the log: the dirty pages."""
        self._at = 0
        self.record["rounds"] += 1
        return int(count_dirty(self._words, self._shift, self._log))

    def fits_downtime(self, pages: int) -> bool:
        """Whether so many pages can be sent while the guest stands still."""
        allowed_bytes = self.plan.downtime_s * self.plan.bandwidth_bytes_per_s
        return pages * PAGE_SIZE <= allowed_bytes

    def send(self, pages_max: int) -> int | None:
        """Send up to so many dirty pages with content; how many, None: the round is over."""
        if self._at == len(self._log):
            return None
        self._at, sent, empty = send_dirty(
            self._words, self._shift, self._log, self._copied, self._at, pages_max
        )
        self.record["sent_pages"] += sent
        self.record["zero_pages"] += empty
        return int(sent)

    def skip(self, ranges: npt.NDArray[Any]) -> None:
        """Hinted memory, DISCARD_RANGE[n]: need not be sent."""
        for entry in ranges[ranges["region"] == RAM_REGION]:
            first = int(entry["offset"]) // PAGE_SIZE
            pages = int(entry["length"]) // PAGE_SIZE
            self.record["skipped_pages"] += clear_dirty(
                self._words, self._shift, self._log, first, pages
            )

    def switch(self) -> npt.NDArray[Any]:
        """The guest is at its destination; returns what it does not have there, to be discarded."""
        missing = np.zeros(len(self._log) + 2, np.uint8)
        resume_with(self._words, self._shift, self._copied, missing[1:-1])
        edges = np.flatnonzero(np.diff(missing))
        ranges = np.zeros(len(edges) // 2, DISCARD_RANGE)
        ranges["region"] = RAM_REGION
        ranges["offset"] = edges[::2] * PAGE_SIZE
        ranges["length"] = (edges[1::2] - edges[::2]) * PAGE_SIZE
        return ranges
