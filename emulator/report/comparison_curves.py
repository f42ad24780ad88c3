"""Residency of a mechanism over all its runs: one curve in the middle of a band.

Runs are sampled at their own times and end at their own times; they are laid on one grid.  The
middle is the median of the runs, the band reaches from the least to the most.  Where fewer than
half of the runs still last, the curve ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from emulator.compare.comparison import Comparison
from emulator.run_folder import RunFolder
from emulator.summary import SeriesRow

_POINTS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Bytes over seconds; all sequences are equally long."""

    times_s: list[float]
    low: list[float]
    middle: list[float]
    high: list[float]


def residency_bands(comparison: Comparison, folder: Path) -> list[Band | None]:
    """The band of each mechanism, in their order, read from the run folders beneath `folder`.

    None for a mechanism without a sample.  Raises ConfigError for a damaged run folder.
    """
    bands = []
    for mechanism in comparison.mechanisms:
        folders = [
            run.folder
            for run in comparison.runs
            if run.mechanism == mechanism.label and run.summary is not None
        ]
        bands.append(residency_band([RunFolder(folder / f).read_series() for f in folders]))
    return bands


def residency_band(runs: Sequence[Sequence[SeriesRow]]) -> Band | None:
    """The band of runs; rows in which residency was not measured are passed over."""
    curves = []
    for rows in runs:
        known = [
            (row.time_s, float(row.resident_bytes))
            for row in rows
            if row.resident_bytes is not None
        ]
        if known:
            curves.append(np.array(known).T)
    if not curves:
        return None
    ends = sorted(times[-1] for times, _ in curves)
    grid = np.linspace(0.0, ends[len(ends) // 2], _POINTS)
    laid = np.array(
        [np.interp(grid, times, values, left=values[0], right=np.nan) for times, values in curves]
    )
    return Band(
        times_s=grid.tolist(),
        low=np.nanmin(laid, axis=0).tolist(),
        middle=np.nanmedian(laid, axis=0).tolist(),
        high=np.nanmax(laid, axis=0).tolist(),
    )
