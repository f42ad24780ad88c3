"""The views of a run under way."""

import io

import pytest
from rich.console import Console

from emulator.report.live import LiveView, PlainView, SilentView, make_view
from emulator.summary import SeriesRow
from tests.support.sample_run import sample_series


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Gone(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        raise OSError(5, "Input/output error")


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_terminal_gets_the_live_view_and_others_lines() -> None:
    capable, dumb = {"TERM": "xterm"}, {"TERM": "dumb"}
    assert isinstance(make_view(_Terminal(), environment=capable), LiveView)
    assert isinstance(make_view(_Terminal(), environment=dumb), PlainView)
    assert isinstance(make_view(_Terminal(), environment={}), PlainView)
    assert isinstance(make_view(io.StringIO(), environment=capable), PlainView)
    assert isinstance(make_view(_Terminal(), quiet=True, environment=capable), SilentView)


def test_plain_lines_come_at_most_once_a_second() -> None:
    file, clock = io.StringIO(), _Clock()
    with PlainView(file, clock=clock) as view:
        view.phase("fill")
        for row in sample_series():
            clock.now_s = 100.0 + row.time_s
            view.sample(row)
        view.event("vCPU 1 was killed")
    lines = file.getvalue().splitlines()
    assert len([line for line in lines if "resident" in line]) == 29
    assert lines[0].endswith("phase: fill")
    assert lines[-1] == "[    28.4 s] vCPU 1 was killed"
    assert "\x1b" not in file.getvalue()


def test_plain_lines_say_what_was_not_measured() -> None:
    file = io.StringIO()
    with PlainView(file) as view:
        view.sample(SeriesRow(time_s=0.1))
    assert "resident not measured" in file.getvalue()


def _live(file: io.StringIO, clock: _Clock) -> LiveView:
    console = Console(file=file, force_terminal=True, width=80, height=24, legacy_windows=False)
    return LiveView(console, memory_bytes=2**30, clock=clock)


def test_the_live_view_draws_at_most_eight_times_a_second() -> None:
    file, clock = _Terminal(), _Clock()
    with _live(file, clock) as view:
        for step in range(1000):
            clock.now_s = 100.0 + step / 1000
            view.sample(SeriesRow(time_s=step / 1000, resident_bytes=2**29))
        drawn = file.getvalue().count("host resident")
        assert 1 <= drawn <= 8
        assert "512 MiB" in file.getvalue()


def test_the_live_view_leaves_the_cursor_visible() -> None:
    file = _Terminal()
    with _live(file, _Clock()) as view:
        view.phase("fill")
        while_running = file.getvalue()
        assert while_running.rfind("\x1b[?25h") > while_running.rfind("\x1b[?25l")
        assert "\x1b[?1049h" not in while_running
    with pytest.raises(KeyboardInterrupt), _live(file, _Clock()):
        raise KeyboardInterrupt
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l")


def test_the_live_view_shows_unmeasured_figures_and_events() -> None:
    file, clock = _Terminal(), _Clock()
    with _live(file, clock) as view:
        view.sample(SeriesRow(time_s=0.0))
        view.event("vCPU [1] was killed")
    assert "not measured" in file.getvalue()
    assert "vCPU [1] was killed" in file.getvalue()


def test_a_terminal_that_went_away_does_not_end_the_run() -> None:
    for view in (_live(_Gone(), _Clock()), PlainView(_Gone())):
        with view:
            view.phase("fill")
            view.event("still running")
            for row in sample_series()[:20]:
                view.sample(row)


@pytest.mark.parametrize("live", [True, False])
def test_what_has_not_changed_is_shown_rarely(live: bool) -> None:
    file, clock = _Terminal(), _Clock()
    environment = {"TERM": "xterm" if live else "dumb"}
    with make_view(file, unchanged_s=30.0, clock=clock, environment=environment) as view:

        def times_shown(since_s: int, end_s: int, resident_bytes: int) -> int:
            before = file.getvalue().count("MiB")
            for second in range(since_s, end_s):
                clock.now_s = 100.0 + second
                view.sample(SeriesRow(time_s=float(second), resident_bytes=resident_bytes))
            return file.getvalue().count("MiB") - before

        assert times_shown(0, 60, 2**29) == 2
        assert times_shown(60, 62, 2**28) == 1
        view.details(["another thing"])
        assert times_shown(62, 64, 2**28) == 1
        assert "another thing" in file.getvalue()
