"""What is known of a real guest from outside: samples while it runs, and figures when it has left.

The guest's own words (statistics, `actual`) are telemetry: shown, never relied upon.  What its
memory really occupies is asked of the system.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import trio

from devices.balloon.features import queue_indices
from devices.balloon.layout import DEFLATE, INFLATE, REPORTING, STATS
from emulator.config.units import PAGE_BYTES
from emulator.host.layout import HOST
from emulator.host.vhost_user_task import VhostUserBalloon
from emulator.measure import host_figures
from emulator.report.wording import keyed_text, label_of, size_text
from emulator.serve.pace import Pace
from emulator.serve.report_log import ReportLog
from emulator.summary import (
    GuestFigures,
    HintingFigures,
    HostFigures,
    ReclaimLatency,
    SeriesRow,
)
from emulator.thinned_rows import ThinnedRows

REPORTS_ACCOUNT: Final = 0
BALLOON_ACCOUNT: Final = 1


class Report(NamedTuple):
    """One request of the guest's: when it came and was done, what it claimed, what came back."""

    time_s: float
    done_s: float
    blocks: int
    claimed_bytes: int
    returned_bytes: int


class Record:
    """One guest's record.  `time_s` counts from its attaching, on trio's clock.

    features:    offered to the guest
    stats_pace:  how often the guest is asked for its figures
    log:         where reported ranges are written; None: nowhere

    A guest may stay for months: rows are thinned, and of reports only sums are kept.  Whoever wants
    each of them sets `observe_report`, which is called with it.
    """

    def __init__(self, *, features: int, stats_pace: Pace, log: ReportLog | None = None) -> None:
        self.accounts: Final[npt.NDArray[Any]] = np.zeros(2, HOST)
        self.balloon: Final = VhostUserBalloon(
            features=features,
            reports=self.accounts[:1],
            pages=self.accounts[1:],
            stats_due=self._wait_stats_due,
            reported=self._reported,
            leaving=self._leaving,
        )
        self.rows: Final = ThinnedRows()
        self.noted: Final[list[tuple[float, int]]] = []  # At the ends of phases.
        self.observe_report: Callable[[Report], None] = lambda report: None
        self.memory_bytes: int | None = None
        self.figures: dict[str, Any] = {}  # Of the balloon, once the guest has left.
        self._log = log
        self._stats_pace = stats_pace
        self._stirred = trio.Event()
        self._reports = self._blocks = 0
        self._resident_bytes_peak = 0
        self._began_s: float | None = None
        self._cpu_s = 0.0

    def begin(self) -> None:
        """The guest attaches now."""
        self._began_s = trio.current_time()
        self._cpu_s = time.process_time()

    @property
    def attached(self) -> bool:
        """Whether a guest has attached, also if it has left."""
        return self._began_s is not None

    def since_s(self, at_s: float | None = None) -> float:
        """Seconds since the guest attached, now or at a time of trio's clock."""
        assert self._began_s is not None, "no guest has attached"
        return (trio.current_time() if at_s is None else at_s) - self._began_s

    def note(self) -> float:
        """What is resident now, for the ends of phases; the time."""
        time_s = self.since_s()
        self.noted.append((time_s, self.balloon.resident_bytes()))
        return time_s

    def sample(self) -> SeriesRow:
        """A row of the series, of now."""
        said = self.statistics()
        row = SeriesRow(
            time_s=round(self.since_s(), 6),
            resident_bytes=self.balloon.resident_bytes(),
            guest_free_bytes=said.get("free_bytes"),
            page_cache_bytes=said.get("caches_bytes"),
            balloon_bytes=self.balloon.actual_bytes,
            balloon_target_bytes=int(self.balloon.config.words[0]["num_pages"]) * PAGE_BYTES,
            reports=self._reports,
        )
        self.rows.append(row)
        self._note_peak(row.resident_bytes or 0)
        return row

    @property
    def ranges_left_out(self) -> int:
        """How many reported ranges are not in `reports.csv`."""
        return 0 if self._log is None else self._log.left_out

    def statistics(self) -> Mapping[str, int]:
        """What the guest said last of itself, by `STATS_TAGS`; nothing, if it has not."""
        device = self.balloon.balloon
        if device is None or STATS not in queue_indices(device.features):
            return {}
        latest: Mapping[str, int] = device.statistics(STATS).latest
        return latest

    def status(self) -> dict[str, Any]:
        """Everything as it is now."""
        balloon, reports = self.balloon, self.accounts[REPORTS_ACCOUNT]
        return {
            "attached": balloon.balloon is not None,
            "memory_bytes": balloon.memory_bytes,
            "resident_bytes": balloon.resident_bytes(),
            "target_bytes": balloon.target_bytes,
            "balloon_bytes": balloon.actual_bytes,
            "reports": self._reports,
            "claimed_bytes": int(reports["claimed_bytes"]),
            "returned_bytes": int(reports["returned_bytes"]),
            "statistics": dict(self.statistics()),
        }

    def stir(self) -> None:
        """The guest does something, or is about to: soon ask it for its figures."""
        self._stirred.set()

    def details(self) -> list[str]:
        """What a row of the series does not say, in words, for whoever looks on."""
        account, wanted = self.accounts[REPORTS_ACCOUNT], self.balloon.wanted_bytes
        returned, claimed = int(account["returned_bytes"]), int(account["claimed_bytes"])
        said = self.statistics().items()
        words = [f"{label_of(name)} {keyed_text(name, value)[0]}" for name, value in said]
        return [
            f"returned {size_text(returned)} of {size_text(claimed)} reported",
            f"balloon target {size_text(wanted)}, actual {size_text(self.balloon.actual_bytes)}",
            *(", ".join(words[at : at + 4]) for at in range(0, len(words), 4)),
        ]

    def guest_figures(self) -> GuestFigures:
        """The guest as it was handed over."""
        return GuestFigures(memory_bytes=self.memory_bytes)

    def host_figures(self) -> HostFigures:
        """Residency over the run, and our CPU time."""
        if not self.rows:
            return HostFigures()
        found = host_figures(self.rows, time.process_time() - self._cpu_s)
        # The row of the peak may have been thinned out, or fallen between two.
        return msgspec.structs.replace(found, resident_bytes_peak=self._resident_bytes_peak)

    def hinting_figures(self, latency_ms: ReclaimLatency | None = None) -> HintingFigures:
        """What was reported, and what came back.

        latency_ms:  where it is known when blocks were freed; by itself, a guest does not tell
        """
        account = self.accounts[REPORTS_ACCOUNT]
        returned, refaulted = int(account["returned_bytes"]), int(account["refaulted_bytes"])
        return HintingFigures(
            reports=self._reports,
            blocks=self._blocks,
            claimed_bytes=int(account["claimed_bytes"]),
            returned_bytes=returned,
            refaulted_bytes=refaulted,
            regret=refaulted / returned if returned else None,
            reclaim_latency_ms=latency_ms,
        )

    def _reported(
        self, at_s: float, addr: npt.NDArray[Any], length: npt.NDArray[Any], returned: int
    ) -> None:
        time_s = self.since_s(at_s)
        if self._log is not None:
            self._log.add(time_s, self._reports, addr, length)
        self._reports += 1
        self._blocks += len(addr)
        report = Report(time_s, self.since_s(), len(addr), int(length.sum()), returned)
        self.observe_report(report)
        self._note_peak(self.balloon.resident_bytes() + returned)

    def _note_peak(self, resident_bytes: int) -> None:
        self._resident_bytes_peak = max(self._resident_bytes_peak, resident_bytes)

    async def _wait_stats_due(self) -> None:
        self._stats_pace.looked(dict(self.statistics()))
        self._stirred = trio.Event()
        with trio.move_on_after(self._stats_pace.pause_s) as rest:
            await self._stirred.wait()
        if not rest.cancelled_caught:  # What it says at once may be what it has said.
            self._stats_pace.expect_news()
            await trio.sleep(self._stats_pace.pause_s)

    def _leaving(self) -> None:
        """The driver goes; its memory is still there."""
        device = self.balloon.balloon
        assert device is not None
        self.memory_bytes = self.balloon.memory_bytes
        account = self.accounts[BALLOON_ACCOUNT]
        dropped = 0
        if REPORTING in queue_indices(device.features):
            seen = device.statistics(REPORTING)
            dropped = seen.elements - seen.accepted
        self.figures = {
            "dropped_elements": dropped,
            "balloon_bytes_end": self.balloon.actual_bytes,
            "inflated_bytes": device.statistics(INFLATE).accepted * PAGE_BYTES,
            "deflated_bytes": device.statistics(DEFLATE).accepted * PAGE_BYTES,
            "inflated_returned_bytes": int(account["returned_bytes"]),
            **{f"guest_{name}": value for name, value in self.statistics().items()},
        }
        self.sample()
