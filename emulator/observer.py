"""Who watches a run: the live view, plain lines on stderr, the run folder.

The runner calls these three methods from one thread, in the order of time, and never waits for
what comes of it: a method returns at once and raises nothing.
"""

from typing import Protocol

from emulator.summary import SeriesRow


class Observer(Protocol):
    """Is told what a run does while it does it."""

    def phase(self, text: str) -> None:
        """A new phase has begun, such as "compiling kernels (first run only, about 20 s)"."""

    def sample(self, row: SeriesRow) -> None:
        """A sample was taken: one row of `series.csv`."""

    def event(self, text: str) -> None:
        """Something happened that is worth a line, such as "vCPU 1 was killed"."""


class NullObserver:
    """Watches nothing: for runs from Python code, and for the inner runs of a sweep."""

    def phase(self, text: str) -> None:
        """Drop it."""

    def sample(self, row: SeriesRow) -> None:
        """Drop it."""

    def event(self, text: str) -> None:
        """Drop it."""
