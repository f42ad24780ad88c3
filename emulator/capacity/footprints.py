"""Recorded footprints, each taken as one period of a guest's life, on one grid of time.

A recording is laid on points that are as far apart as its own samples, or as those of the finest
recording: between samples, which may lie at any times, it is interpolated.  Its last sample is the
first of the next period.  Recordings may last differently long; each repeats after its own time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from emulator.config.units import write_time
from emulator.errors import ConfigError

POINTS_MAX: Final = 4096  # Of the longest recording: each is less than 0.025 % of its time.


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprints:
    """Curves of bytes over time.

    curves:      f8[recordings][points of each], one period each
    runs:        the run that each is of, from 0; what was recorded together belongs together
    step_s:      between two points; of a recording whose time is no multiple of it, nearly so
    peak_bytes:  the largest sample of all, which may lie between two points
    jump:        by how much the end of a period may lie from its beginning, of the peak
    """

    curves: tuple[npt.NDArray[np.float64], ...]
    runs: tuple[int, ...]
    step_s: float
    peak_bytes: float
    jump: float

    @property
    def mean_bytes(self) -> float:
        """Of a guest that is any of the recorded ones, over its time."""
        return float(np.mean([curve.mean() for curve in self.curves]))

    @property
    def points(self) -> int:
        """Of the longest period."""
        return max(len(curve) for curve in self.curves)

    @property
    def period_s(self) -> float:
        """The longest."""
        return self.points * self.step_s


def lay_footprints(
    recordings: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    after_s: float = 0.0,
    runs: Sequence[int] | None = None,
) -> Footprints:
    """The footprints of recordings, each (seconds in ascending order, bytes).

    after_s:  earlier samples are left out
    runs:     the run that each is of, from 0; without, each is of a run of its own
    Raises ConfigError without a recording, and for one of less than two samples or without time.
    """
    if not recordings:
        raise ConfigError("no recording of resident memory")
    kept = [_after(np.array(times), np.array(sizes), after_s) for times, sizes in recordings]
    longest_s = max(times[-1] - times[0] for times, _ in kept)
    finest_s = min(float(np.median(np.diff(times))) for times, _ in kept)
    step_s = float(max(finest_s, longest_s / POINTS_MAX))
    curves = []
    for times, sizes in kept:
        span_s = times[-1] - times[0]
        points = max(1, round(span_s / step_s))
        curves.append(np.interp(times[0] + np.arange(points) * (span_s / points), times, sizes))
    peak = max(float(sizes.max()) for _, sizes in kept)
    gap = max(abs(float(sizes[-1] - sizes[0])) for _, sizes in kept)
    return Footprints(
        curves=tuple(curves),
        runs=tuple(range(len(curves)) if runs is None else runs),
        step_s=step_s,
        peak_bytes=peak,
        jump=gap / peak if peak else 0.0,
    )


def _after(
    times: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], after_s: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    times, first = np.unique(times.astype(np.float64), return_index=True)
    sizes = sizes.astype(np.float64)[first]
    kept = times >= after_s
    if kept.sum() < 2:
        of = f" after {write_time(after_s)}" if after_s else ""
        raise ConfigError(
            f"a recording has {int(kept.sum())} samples of resident memory at different times{of}; "
            "two or more are needed"
        )
    return times[kept], sizes[kept]
