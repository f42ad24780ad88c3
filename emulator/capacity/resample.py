"""How many guests fit a host with a small probability of swapping, by resampling footprints.

A resample is a host that fills up: guest after guest is drawn from the recordings, each at a phase
drawn evenly from its own period, and the footprints are added up over one period.  As a resample
only ever gets guests, its sum grows with each: what is found is monotone in the number of guests
and in the host's memory, not only on average.  Over all resamples,

    exceeding[n]     the part of the time in which the sum of n guests is more than the host has
    any_excess[n]    the part of the resamples in which it is so at any time of a period

The number that fits under a probability is the largest n with exceeding[n] below it.  Resamples are
made in batches: how these differ is the standard error of the probability, which more resamples
make smaller.  What they cannot make smaller is that a few guests were recorded, of all that might
have been.  So the interval of the number that fits is that of further batches, before each of which
the recordings are drawn again, with replacement (B. Efron's bootstrap, 1979).  Guests of one run
are no independent recordings, for a manager of their host may couple them: whole runs are drawn,
each with all its guests (the cluster bootstrap; A. C. Davison and D. V. Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8).  A batch is but a hundredth of the resamples: the
interval is rather too wide than too narrow.  A single run cannot be drawn again, and its interval
is of the resampling alone.

Not modelled: guests that do the same at the same time (host / peak is what that takes), pages that
guests share, and what swapping does to them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from emulator.capacity.footprints import Footprints
from emulator.config.capacity import BATCHES, CapacityConfig
from emulator.config.units import write_size
from emulator.errors import ConfigError

GUESTS_MAX: Final = 10_000
_BOOTSTRAPS: Final = 1000
_CONFIDENCE: Final = 0.95
_PRECISE: Final = 0.1  # The standard error that `resamples_needed` is for, of the probability.
_KEPT_MAX: Final = 1 << 22  # Values that quantiles are taken from.
_AGAIN_MAX: Final = 10  # Times the number that fits: what is sought when drawing again, at most.
_SURELY: Final = 0.5  # The probability at which the first batch stops to add guests, at least.

_Rows = Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A number of guests, and its 95 % interval."""

    guests: int
    low: int
    high: int


class SumOfGuests(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that so many guests hold together, over all times of all resamples."""

    mean: float
    p99: float
    p999: float
    max: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What fits with a probability of swapping below `probability`, as a part of the time."""

    probability: float
    fits: Range
    exceeding: float  # With so many guests ...
    exceeding_next: float  # ... and with one more.
    relative_error: float | None  # The standard error of `exceeding`; None: it was never exceeded.
    resamples_needed: int | None  # For 10 % of that.
    any_excess: float  # With so many guests, the probability that a period has any excess.
    fits_whole_periods: Range  # Where `probability` is of that instead.
    sum_bytes: SumOfGuests | None  # None: no guest fits.


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """How many guests like the recorded ones fit a host."""

    host_bytes: int
    recordings: int
    runs: int | None = None  # That were drawn again; None in documents that are older than that.
    period_s: float  # The longest recording.
    step_s: float
    after_s: float
    jump: float  # From the end of a recording to its beginning, at most, of the peak.
    resamples: int
    seed: int
    guest_mean_bytes: float
    guest_peak_bytes: float
    guests_by_mean: int  # What usual rules say: the host's memory by the mean ...
    guests_by_peak: int  # ... and by the peak.
    fits: list[Fit]
    exceeding: list[float]  # With 1, 2, ... guests.
    any_excess: list[float]


def find_capacity(footprints: Footprints, config: CapacityConfig, *, seed: int) -> Capacity:
    """What fits; the same seed gives the same answer.

    Raises ConfigError for a host that has less than one guest's mean, or room for more than
    GUESTS_MAX.
    """
    mean = footprints.mean_bytes
    _require_room(config.host_bytes, mean)
    drawn = _Resamples(footprints, config.resamples, seed)
    most = max(config.probabilities)
    times, hosts = drawn.count_excess(config.host_bytes, most)
    exceeding, any_excess = times.sum(0) / drawn.times, hosts.sum(0) / config.resamples
    again = drawn.again(config.host_bytes, most, times, hosts)
    found = {p: _fitting(exceeding, p) for p in config.probabilities}
    sums = drawn.sums_of({n for n in found.values() if n})
    fits = [
        Fit(
            probability=p,
            fits=_range(exceeding, again[0], p),
            exceeding=_at(exceeding, n),
            exceeding_next=_at(exceeding, n + 1),
            relative_error=_relative_error(times, n),
            resamples_needed=_needed(config.resamples, _relative_error(times, n)),
            any_excess=_at(any_excess, n),
            fits_whole_periods=_range(any_excess, again[1], p),
            sum_bytes=sums.get(n),
        )
        for p, n in found.items()
    ]
    return Capacity(
        host_bytes=config.host_bytes,
        recordings=len(footprints.curves),
        runs=len(set(footprints.runs)),
        period_s=footprints.period_s,
        step_s=footprints.step_s,
        after_s=config.after_s,
        jump=footprints.jump,
        resamples=config.resamples,
        seed=seed,
        guest_mean_bytes=mean,
        guest_peak_bytes=footprints.peak_bytes,
        guests_by_mean=int(config.host_bytes // mean),
        guests_by_peak=int(config.host_bytes // footprints.peak_bytes),
        fits=fits,
        exceeding=exceeding.tolist(),
        any_excess=any_excess.tolist(),
    )


def _require_room(host_bytes: int, mean: float) -> None:
    if mean <= 0:
        raise ConfigError("the recordings hold no memory at any time, so that any number fits")
    if host_bytes < mean:
        raise ConfigError(
            f"host: {write_size(host_bytes)} are less than the {mean / 2**20:.0f}MiB that one "
            f"guest holds on average; use more than that"
        )
    if host_bytes / mean > GUESTS_MAX:
        raise ConfigError(
            f"host: {write_size(host_bytes)} have room for more than {GUESTS_MAX} guests of "
            f"{mean / 2**20:.3g}MiB on average; use a smaller host"
        )


class _Resamples:
    """The resamples of one seed, made again whenever they are asked for."""

    def __init__(self, footprints: Footprints, resamples: int, seed: int) -> None:
        width = footprints.points
        self._points = np.array([len(curve) for curve in footprints.curves])
        around = np.array([np.resize(curve, 2 * width) for curve in footprints.curves])
        self._windows = np.lib.stride_tricks.sliding_window_view(around, width, axis=1)
        of = np.array(footprints.runs)
        self._runs = [np.flatnonzero(of == run) for run in np.unique(of)]
        self._size = resamples // BATCHES
        self._seeds = np.random.SeedSequence([seed, 0]).spawn(BATCHES)
        self.times = resamples * width

    def _filling(self, batch: int, redrawn: bool = False) -> Iterator[npt.NDArray[np.float64]]:
        """The sums f8[resamples of the batch][points] with 1, 2, ... guests, without end; each is
        valid until the next.  `redrawn`: of runs that are drawn again first."""
        rng = np.random.default_rng(self._seeds[batch])
        runs = len(self._runs)
        drawn = rng.integers(runs, size=runs) if redrawn else np.arange(runs)
        pool = np.concatenate([self._runs[run] for run in drawn])
        sums = np.zeros((self._size, self._windows.shape[2]))
        while True:
            guests = pool[rng.integers(len(pool), size=self._size)]
            sums += self._windows[guests, rng.integers(self._points[guests])]
            yield sums

    def count_excess(
        self, host_bytes: int, most: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many points, and how many resamples, exceed the host: i8[batches][guests - 1], each
        up to a number of guests that exceeds it in more than `most` of the time."""
        surely = max(_SURELY, (1 + most) / 2)
        guests = 0
        for guests, sums in enumerate(self._filling(0), start=1):  # noqa: B007
            if np.count_nonzero(sums > host_bytes) >= surely * sums.size:
                break
        while True:
            counts = np.array([self._counts(n, guests, host_bytes) for n in range(BATCHES)])
            if counts[:, -1, 0].sum() > most * self.times:
                return counts[:, :, 0], counts[:, :, 1]
            guests += guests // 4 + 1

    def _counts(
        self, batch: int, guests: int, host_bytes: int, *, redrawn: bool = False, most: float = 1.0
    ) -> npt.NDArray[np.int64]:
        """How many points, and how many resamples, of a batch exceed the host: i8[guests][2], as
        far as the first number of guests that exceeds it in more than `most` of the time."""
        found = []
        for _, sums in zip(range(guests), self._filling(batch, redrawn), strict=False):
            over = sums > host_bytes
            found.append((int(over.sum()), int(over.any(axis=1).sum())))
            if found[-1][0] > most * sums.size:
                break
        return np.array(found)

    def again(
        self,
        host_bytes: int,
        most: float,
        times: npt.NDArray[np.int64],
        hosts: npt.NDArray[np.int64],
    ) -> tuple[_Rows, _Rows]:
        """What may have been found instead: both probabilities f8[guests - 1], a row each time,
        from runs drawn again; of a single one, from its batches drawn again."""
        size = self._size
        if len(self._runs) == 1:
            weights = np.random.default_rng(self._seeds[0].spawn(1)[0]).multinomial(
                BATCHES, np.full(BATCHES, 1 / BATCHES), size=_BOOTSTRAPS
            )
            return weights @ times / self.times, weights @ hosts / (size * BATCHES)
        guests = _AGAIN_MAX * times.shape[1]
        counts = [
            self._counts(n, guests, host_bytes, redrawn=True, most=most) for n in range(BATCHES)
        ]
        return [c[:, 0] / (self.times / BATCHES) for c in counts], [c[:, 1] / size for c in counts]

    def sums_of(self, numbers: set[int]) -> dict[int, SumOfGuests]:
        """What so many guests hold; quantiles of evenly spaced points where there are many."""
        every = -(-self.times // _KEPT_MAX)
        kept: dict[int, list[Any]] = {n: [] for n in numbers}
        highest = dict.fromkeys(numbers, 0.0)
        for batch in range(BATCHES if numbers else 0):
            filling = zip(range(1, max(numbers) + 1), self._filling(batch), strict=False)
            for n, sums in filling:
                if n in numbers:
                    highest[n] = max(highest[n], float(sums.max()))
                    kept[n].append(sums[:, ::every].copy())
        return {n: _sum_of(np.concatenate(kept[n]), highest[n]) for n in numbers}


def _sum_of(sums: npt.NDArray[np.float64], highest: float) -> SumOfGuests:
    p99, p999 = np.quantile(sums, [0.99, 0.999], method="inverted_cdf")
    return SumOfGuests(mean=float(sums.mean()), p99=float(p99), p999=float(p999), max=highest)


def _fitting(probabilities: npt.NDArray[np.float64], below: float) -> int:
    """The largest number of guests whose probability is below; they ascend, so by bisection."""
    return int(np.searchsorted(probabilities, below, side="left"))


def _range(probabilities: npt.NDArray[np.float64], again: _Rows, below: float) -> Range:
    drawn = [_fitting(row, below) for row in again]
    low, high = np.quantile(
        drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2], method="inverted_cdf"
    )
    return Range(guests=_fitting(probabilities, below), low=int(low), high=int(high))


def _at(probabilities: Sequence[float] | npt.NDArray[np.float64], guests: int) -> float:
    return float(probabilities[guests - 1]) if guests else 0.0


def _relative_error(times: npt.NDArray[np.int64], guests: int) -> float | None:
    """The standard error of the mean over the batches, of that mean."""
    counts = times[:, guests - 1] if guests else np.zeros(1)
    if not counts.any():
        return None
    return float(counts.std(ddof=1) / np.sqrt(len(counts)) / counts.mean())


def _needed(resamples: int, relative_error: float | None) -> int | None:
    if relative_error is None:
        return None
    return max(BATCHES, int(np.ceil(resamples * (relative_error / _PRECISE) ** 2)))
