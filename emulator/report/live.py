"""What a run does at the moment, on standard error: a live view, plain lines, or nothing.

All three are observers of a run and context managers.  They are cheap: however often a run
reports, the live view draws at most 8 times and the plain view prints at most once a second, and
neither more often than it is asked to while nothing but the time changes.

The live view never hides the cursor nor leaves the main screen, and draws without a thread.  So a
run that is killed, even by SIGKILL, leaves a terminal that works; a run that ends takes the view
away and leaves the screen to the result.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emulator.observer import Observer
from emulator.report.sparkline import ASCII_BLOCKS, BLOCKS, Trail, sparkline
from emulator.report.wording import count_text, duration_text, rate_text, size_text
from emulator.summary import SeriesRow

_DRAW_INTERVAL_S: Final = 1 / 8
_LINE_INTERVAL_S: Final = 1.0
_TRAIL_COLUMNS: Final = 40
_ALWAYS: Final = ("host resident", "guest free")  # Other bars: where they are measured.

Clock = Callable[[], float]


class View(Observer, Protocol):
    """An observer that owns a part of the screen while its `with` block runs."""

    def details(self, lines: Sequence[str]) -> None:
        """Show these with the next sample, in the place of earlier ones."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def make_view(
    stderr: TextIO,
    quiet: bool = False,
    *,
    memory_bytes: int | None = None,
    unchanged_s: float = _LINE_INTERVAL_S,
    clock: Clock = time.monotonic,
    environment: Mapping[str, str] = os.environ,
) -> View:
    """The view that suits `stderr`: live on a capable terminal, plain lines elsewhere.

    `quiet` asks for none.  `memory_bytes` is the guest's size, the full length of the memory bars;
    without it the largest value so far is.  A sample that says what the one before has said is
    shown every `unchanged_s`: a drawing takes 2 ms.  `clock` gives seconds that never go back; TERM
    and NO_COLOR come from `environment`.
    """
    if quiet:
        return SilentView()
    colourless = bool(environment.get("NO_COLOR"))
    if stderr.isatty() and environment.get("TERM", "dumb").lower() not in ("dumb", "unknown"):
        console = Console(file=stderr, no_color=colourless)
        return LiveView(console, memory_bytes=memory_bytes, unchanged_s=unchanged_s, clock=clock)
    return PlainView(stderr, unchanged_s=unchanged_s, clock=clock)


class _Rate:
    """Operations per second between the newest sample and one about a second earlier."""

    def __init__(self) -> None:
        self._older: tuple[float, int] | None = None
        self.per_second: float | None = None

    def update(self, time_s: float, operations: int | None) -> None:
        if operations is None:
            return
        if self._older is None:
            self._older = (time_s, operations)
            return
        elapsed_s = time_s - self._older[0]
        if elapsed_s >= 1.0:
            self.per_second = (operations - self._older[1]) / elapsed_s
            self._older = (time_s, operations)


class _Due:
    """When a sample is shown: not too often, and rarely where it says what the last one said."""

    def __init__(self, clock: Clock, interval_s: float, unchanged_s: float) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._unchanged_s = unchanged_s
        self._shown_at_s = -math.inf
        self._said: object = None

    def shows(self, row: SeriesRow, details: Sequence[str]) -> bool:
        """Whether to show it now; if so, it is taken as shown."""
        said = (msgspec.structs.replace(row, time_s=0), tuple(details))
        now_s = self._clock()
        interval_s = self._unchanged_s if said == self._said else self._interval_s
        if now_s < self._shown_at_s + interval_s:
            return False
        self._said, self._shown_at_s = said, now_s
        return True


class SilentView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def details(self, lines: Sequence[str]) -> None:
        """Ignored."""

    def phase(self, text: str) -> None:
        """Ignored."""

    def sample(self, row: SeriesRow) -> None:
        """Ignored."""

    def event(self, text: str) -> None:
        """Ignored."""


class PlainView:
    """Prints plain lines: every phase and event, and the newest sample once a second."""

    def __init__(
        self,
        stderr: TextIO,
        *,
        unchanged_s: float = _LINE_INTERVAL_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._stderr: TextIO | None = stderr
        self._rate = _Rate()
        self._due = _Due(clock, _LINE_INTERVAL_S, unchanged_s)
        self._details: Sequence[str] = ()
        self._now_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def details(self, lines: Sequence[str]) -> None:
        """Keep them for the next line."""
        self._details = lines

    def phase(self, text: str) -> None:
        """Print the name of the phase that begins."""
        self._print(f"phase: {text}")

    def event(self, text: str) -> None:
        """Print what happened."""
        self._print(text)

    def sample(self, row: SeriesRow) -> None:
        """Print the sample, unless one was printed a short while ago."""
        self._now_s = row.time_s
        self._rate.update(row.time_s, row.operations)
        if not self._due.shows(row, self._details):
            return
        words = [f"resident {size_text(row.resident_bytes)}"]
        words += [f"free {size_text(row.guest_free_bytes)}"]
        if row.guest_reported_bytes is not None:
            words += [f"reported {size_text(row.guest_reported_bytes)}"]
        words += [f"reports {count_text(row.reports)}"]
        if row.balloon_bytes is not None:
            words += [f"balloon {size_text(row.balloon_bytes)}"]
        if row.swapped_bytes is not None:
            words += [f"swapped {size_text(row.swapped_bytes)}"]
        if self._rate.per_second is not None:
            words += [rate_text(self._rate.per_second)]
        self._print("; ".join([", ".join(words), *self._details]))

    def _print(self, words: str) -> None:
        if self._stderr is None:
            return
        try:
            self._stderr.write(f"[{self._now_s:8.1f} s] {words}\n")  # At once, whatever comes.
            self._stderr.flush()
        except (
            OSError,
            ValueError,
        ):  # Nobody reads any more; the run and its result matter, not its progress.
            self._stderr = None


class LiveView:
    """A small panel that stays in place: memory bars, counters, phase and a curve."""

    def __init__(
        self,
        console: Console,
        *,
        memory_bytes: int | None = None,
        unchanged_s: float = _LINE_INTERVAL_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._console = console
        self._full_bytes = memory_bytes or 0
        self._rate = _Rate()
        self._trail = Trail(_TRAIL_COLUMNS)
        self._phase = "starting"
        self._row: SeriesRow | None = None
        self._due = _Due(clock, _DRAW_INTERVAL_S, unchanged_s)
        self._details: Sequence[str] = ()
        self._gone = False
        self._live = Live(
            console=console,
            auto_refresh=False,  # Otherwise a thread draws, also when nothing is new.
            transient=True,
            redirect_stdout=False,  # The result may go to a file.
            vertical_overflow="crop",
        )
        encoding = console.encoding.lower()
        self._blocks = BLOCKS if encoding.startswith("utf") else ASCII_BLOCKS

    def __enter__(self) -> Self:
        self._on_terminal(self._live.start)
        self._on_terminal(lambda: self._console.show_cursor(True))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._on_terminal(self._live.stop)

    def details(self, lines: Sequence[str]) -> None:
        """Keep them for the next drawing."""
        self._details = lines

    def phase(self, text: str) -> None:
        """Show the name of the phase that begins."""
        self._phase = text
        self._draw()

    def event(self, text: str) -> None:
        """Print what happened above the panel, where it stays."""
        self._on_terminal(lambda: self._console.print(Text(text)))

    def sample(self, row: SeriesRow) -> None:
        """Take a sample in; it is drawn if the last drawing was long enough ago."""
        self._row = row
        self._rate.update(row.time_s, row.operations)
        known = (row.resident_bytes, row.guest_free_bytes, row.guest_reported_bytes)
        self._full_bytes = max(self._full_bytes, *(size or 0 for size in known))
        if row.resident_bytes is not None:
            self._trail.append(row.resident_bytes)
        if self._due.shows(row, self._details):
            self._draw()

    def _draw(self) -> None:
        self._on_terminal(lambda: self._live.update(self._panel(), refresh=True))

    def _on_terminal(self, draw: Callable[[], object]) -> None:
        """Draw unless the terminal has gone away: the run and its result matter."""
        if self._gone:
            return
        try:
            draw()
        except OSError:
            self._gone = True

    def _panel(self) -> Group | Text:
        row = self._row
        if row is None:
            return Text(self._phase, "bold")
        head = Text.assemble((self._phase, "bold"), (f"   {duration_text(row.time_s)}", "dim"))
        bars = Table.grid(padding=(0, 2, 0, 0))
        bars.add_column(no_wrap=True)
        bars.add_column(width=_TRAIL_COLUMNS)
        bars.add_column(justify="right", no_wrap=True)
        for label, size, style in (
            ("host resident", row.resident_bytes, "cyan"),
            ("guest free", row.guest_free_bytes, "yellow"),
            ("reported", row.guest_reported_bytes, "magenta"),
            ("page cache", row.page_cache_bytes, "green"),
            ("balloon", row.balloon_bytes, "blue"),
            ("swapped out", row.swapped_bytes, "red"),
        ):
            if size is not None or label in _ALWAYS:
                bars.add_row(label, self._bar(size, style), size_text(size))
        curve = sparkline(self._trail.peaks(), self._full_bytes, self._blocks)
        bars.add_row("resident so far", Text(curve, "cyan"), "")
        counters = f"reports {count_text(row.reports)}"
        if row.operations is not None:
            counters += f"   operations {count_text(row.operations)}"
        if self._rate.per_second is not None:
            counters += f"   {rate_text(self._rate.per_second)}"
        lines = [counters, *self._details]
        return Group(head, bars, *(Text(it, no_wrap=True, overflow="ellipsis") for it in lines))

    def _bar(self, size_bytes: int | None, style: str) -> ProgressBar | Text:
        if size_bytes is None:
            return Text()
        return ProgressBar(
            total=max(1, self._full_bytes),
            completed=size_bytes,
            width=_TRAIL_COLUMNS,
            style="bright_black",
            complete_style=style,
            finished_style=style,
        )
