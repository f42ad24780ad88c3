"""Reading the histograms that kernels fill (`lock_kernels.bucket_of`): 16 buckets an octave.

A bucket is at most 1/16 of its value wide, so that a percentile is within 3 % of the truth.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emulator.guest.mm.layout import BUCKETS_PER_OCTAVE, NR_BUCKETS


def _lower_bounds() -> npt.NDArray[np.int64]:
    buckets = np.arange(NR_BUCKETS, dtype=np.int64)
    shift = np.maximum(buckets // BUCKETS_PER_OCTAVE - 1, 0)
    return (buckets - BUCKETS_PER_OCTAVE * shift) << shift


_LOWER: Final = _lower_bounds()
BUCKET_MIDDLES: Final[npt.NDArray[np.float64]] = (
    _LOWER + (np.diff(_LOWER, append=_LOWER[-1]) - 1).clip(0) / 2
)


def bucket_indices(values: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """The bucket of each value, as the kernels count them."""
    return np.searchsorted(_LOWER, np.maximum(values, 0), side="right") - 1


def percentile(counts: npt.NDArray[Any], fraction: float) -> float | None:
    """The value below which `fraction` of what was counted lies; None if nothing was."""
    total = int(counts.sum())
    if total == 0:
        return None
    reached = np.cumsum(counts)
    bucket = int(np.searchsorted(reached, max(1, int(np.ceil(fraction * total)))))
    width = int(_LOWER[min(bucket + 1, NR_BUCKETS - 1)] - _LOWER[bucket])
    return float(_LOWER[bucket] + (width - 1) / 2 if width > 1 else _LOWER[bucket])
