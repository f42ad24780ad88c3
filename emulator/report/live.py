"""What a run does at the moment, on standard error: a live view, plain lines, or nothing.

All three are observers of a run and context managers.  They are cheap: however often a run
reports, the live view draws at most 8 times and the plain view prints at most once a second.

The live view never hides the cursor nor leaves the main screen, and draws without a thread.  So a
run that is killed, even by SIGKILL, leaves a terminal that works; a run that ends takes the view
away and leaves the screen to the result.
"""

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

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
_ALWAYS: Final = ("host resident", "guest free", "reported")  # Other bars: where they are measured.

Clock = Callable[[], float]


class View(Observer, Protocol):
    """An observer that owns a part of the screen while its `with` block runs."""

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
    clock: Clock = time.monotonic,
    environment: Mapping[str, str] = os.environ,
) -> View:
    """The view that suits `stderr`: live on a capable terminal, plain lines elsewhere.

    `quiet` asks for none.  `memory_bytes` is the guest's size, the full length of the memory bars;
    without it the largest value so far is.  `clock` gives seconds that never go back; TERM and
    NO_COLOR come from `environment`.
    """
    if quiet:
        return SilentView()
    colourless = bool(environment.get("NO_COLOR"))
    if stderr.isatty() and environment.get("TERM", "dumb").lower() not in ("dumb", "unknown"):
        return LiveView(
            Console(file=stderr, no_color=colourless), memory_bytes=memory_bytes, clock=clock
        )
    return PlainView(stderr, clock=clock)


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

    def phase(self, text: str) -> None:
        """Ignored."""

    def sample(self, row: SeriesRow) -> None:
        """Ignored."""

    def event(self, text: str) -> None:
        """Ignored."""


class PlainView:
    """Prints plain lines: every phase and event, and the newest sample once a second."""

    def __init__(self, stderr: TextIO, *, clock: Clock = time.monotonic) -> None:
        self._stderr: TextIO | None = stderr
        self._clock = clock
        self._rate = _Rate()
        self._due_at_s = clock()
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

    def phase(self, text: str) -> None:
        """Print the name of the phase that begins."""
        self._print(f"phase: {text}")

    def event(self, text: str) -> None:
        """Print what happened."""
        self._print(text)

    def sample(self, row: SeriesRow) -> None:
        """Print the sample, unless one was printed less than a second ago."""
        self._now_s = row.time_s
        self._rate.update(row.time_s, row.operations)
        now_s = self._clock()
        if now_s < self._due_at_s:
            return
        self._due_at_s = now_s + _LINE_INTERVAL_S
        words = (
            f"resident {size_text(row.resident_bytes)}, free {size_text(row.guest_free_bytes)}, "
            f"reported {size_text(row.guest_reported_bytes)}, reports {count_text(row.reports)}"
        )
        if row.balloon_bytes is not None:
            words += f", balloon {size_text(row.balloon_bytes)}"
        if self._rate.per_second is not None:
            words += f", {rate_text(self._rate.per_second)}"
        self._print(words)

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
        clock: Clock = time.monotonic,
    ) -> None:
        self._console = console
        self._clock = clock
        self._full_bytes = memory_bytes or 0
        self._rate = _Rate()
        self._trail = Trail(_TRAIL_COLUMNS)
        self._phase = "starting"
        self._row: SeriesRow | None = None
        self._due_at_s = clock()
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
        if self._clock() >= self._due_at_s:
            self._draw()

    def _draw(self) -> None:
        self._due_at_s = self._clock() + _DRAW_INTERVAL_S
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
        ):
            if size is not None or label in _ALWAYS:
                bars.add_row(label, self._bar(size, style), size_text(size))
        curve = sparkline(self._trail.peaks(), self._full_bytes, self._blocks)
        bars.add_row("resident so far", Text(curve, "cyan"), "")
        counters = f"reports {count_text(row.reports)}   operations {count_text(row.operations)}"
        if self._rate.per_second is not None:
            counters += f"   {rate_text(self._rate.per_second)}"
        return Group(head, bars, Text(counters, no_wrap=True, overflow="ellipsis"))

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
