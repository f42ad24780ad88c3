"""A comparison in words: figures, differences, and how it was done.

The text, the mail and the HTML page say the same because they say it from here.  No difference is
ever given without its interval.
"""

import math
import shlex
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from emulator.compare.comparison import Comparison, FigureOfAll
from emulator.compare.design import design_repeats
from emulator.compare.measured import FigureOfMechanism, FoundDifference
from emulator.compare.statistics import PAIRS_MIN, widths_per_spread
from emulator.report.wording import (
    count_text,
    counted,
    decimal_text,
    duration_text,
    keyed_text,
    label_of,
    listed,
    size_text,
    unit_key,
)

_LABELS: Final = {
    "host.footprint_gib_min": "footprint, GiB min",
    "host.resident_bytes_end": "resident at the end",
    "host.resident_bytes_mean": "resident, mean",
    "host.swapped_bytes_peak": "swapped at the peak",
    "host.swap_wait_s": "waited for the swap",
    "guest.free_bytes_mean": "free in the guest, mean",
    "page_cache.bytes_mean": "page cache, mean",
    "page_cache.host_cache_bytes_mean": "host's cache, mean",
    "page_cache.duplicate_bytes_mean": "cached in both, mean",
    "page_cache.read_wait_s": "waited for reads",
    "hinting.reclaim_latency_ms.p50": "freed to returned, p50",
    "hinting.reclaim_latency_ms.p99": "freed to returned, p99",
    "cost.cpu_s_per_gib_returned": "CPU per GiB returned",
    "hinting.regret": "regret",
    "balloon.inflated_returned_bytes": "inflated and returned",
    "cost.zone_lock_hold_us.p99": "zone lock held, p99",
    "vcpus.operations_per_s": "operations per second",
    "vcpus.failed_allocations": "failed allocations",
    "stranded.percpu_bytes": "stranded, per CPU",
    "stranded.unreported_bytes": "stranded, not reported",
}
#: The figures that decide, in the order in which the answer names them.
DECISIVE: Final = (
    "host.footprint_gib_min",
    "hinting.reclaim_latency_ms.p50",
    "cost.cpu_s_per_gib_returned",
    "vcpus.operations_per_s",
)
#: Where memory is at the end, by words of at most 10 characters.
_LEFT_BEHIND: Final = {
    "resident": "host.resident_bytes_end",
    "unreported": "stranded.unreported_bytes",
    "low order": "stranded.below_order_bytes",
    "per CPU": "stranded.percpu_bytes",
    "in flight": "stranded.in_flight_bytes",
    "page cache": "stranded.page_cache_bytes",
}
PLUS_MINUS: Final = "±"
PLUS_MINUS_ASCII: Final = "+-"

_REPEATS_FEW: Final = 6
_WHOLE_MIN: Final = 100  # A mean of counts from here on is given as a count.
_NEGLIGIBLE: Final = 1e-9  # Of a per cent: rounding of equal differences.
_TENTHS_MAX: Final = 99.95  # Per cent; above, a range is given without tenths.
_FRACTION_MAX: Final = 10.0  # Above 1000 % a difference is given in the figure's own unit.


def figure_label(metric: str) -> str:
    """What a figure is called, in at most 22 characters: `stranded, below order`."""
    section, name = metric.split(".")[:2]
    label = label_of(name)
    return _LABELS.get(metric) or (label if section == "workload" else f"{section}, {label}")


def value_text(metric: str, value: float | None) -> str:
    """A single value or a mean as people read it; `-` if it was not measured."""
    if value is None:
        return "-"
    if metric == "vcpus.failed_allocations":
        return count_text(value) if value == int(value) else decimal_text(value)
    if metric == "cost.cpu_s_per_gib_returned":
        return duration_text(value)
    return keyed_text(unit_key(metric), value)[0]


def difference_text(metric: str, found: FoundDifference, plus_minus: str = PLUS_MINUS) -> str:
    """A difference with its interval: `-50.2 ±1.1 %`, or in the figure's unit where the baseline
    is 0 or the difference more than tenfold: `+16 MiB ±2 MiB`.  `equal`: in every pair.  Too few
    pairs for an interval have theirs beside the mean: `-50.2 % (-51.0..-49.4)`."""
    if found.half_width == 0 and found.mean == 0:
        return "equal"
    if found.fraction is not None and abs(found.fraction) <= _FRACTION_MAX:
        return _percent(found, found.fraction, plus_minus)
    mean = f"{'-' if found.mean < 0 else '+'}{value_text(metric, abs(found.mean))}"
    if found.half_width is None:
        return f"{mean} ({'one pair' if found.pairs == 1 else f'{found.pairs} pairs'})"
    return f"{mean} {plus_minus}{value_text(metric, found.half_width)}"


def _percent(found: FoundDifference, fraction: float, plus_minus: str) -> str:
    half = None if found.half_width_fraction is None else found.half_width_fraction * 100
    decimals = 1 if half is None or half < 10 else 0
    percent = round(fraction * 100, decimals) + 0.0  # Adding 0 makes -0 a 0.
    mean = f"{percent:+.{decimals}f}"
    if half is None:
        if found.pairs == 1 or found.mean == 0:
            return f"{mean} % ({'one pair' if found.pairs == 1 else f'{found.pairs} pairs'})"
        ends = [100 * fraction * one / found.mean for one in (found.least, found.most)]
        decimals = 1 if max(map(abs, ends)) < _TENTHS_MAX else 0
        least, most = (f"{round(end, decimals) + 0.0:+.{decimals}f}" for end in ends)
        return f"{mean} % ({f'{least}..{most}' if least != most else f'{found.pairs} pairs'})"
    if half < _NEGLIGIBLE:
        return f"{mean} {plus_minus}0 %"
    shown = math.ceil(half * 10**decimals) / 10**decimals  # Never narrower than it is.
    return f"{mean} {plus_minus}{shown:.{decimals}f} %"


def verdict_text(metric: str, found: FoundDifference, plus_minus: str = PLUS_MINUS) -> str:
    """The difference, or that none was detected, with the interval in either case."""
    difference = difference_text(metric, found, plus_minus)
    if found.verdict == "no difference detected":
        return f"no difference detected ({difference})"
    return difference


def quality_text(found: FoundDifference) -> str:
    """`better` or `worse`; empty where no difference was detected, or where neither is."""
    return {True: "better", False: "worse", None: ""}[found.is_better]


def answers(comparison: Comparison, plus_minus: str = PLUS_MINUS) -> list[str]:
    """A sentence for each mechanism but the baseline: the decisive figures, with intervals."""
    sentences = []
    for number, mechanism in enumerate(comparison.mechanisms[1:], start=1):
        detected, undetected = [], []
        for metric in DECISIVE:
            found = comparison.figure(metric).mechanisms[number].difference
            if found is None:
                continue
            name = figure_label(metric).removesuffix(", GiB min")
            difference = difference_text(metric, found, plus_minus)
            if found.verdict == "no difference detected":
                undetected.append(f"{name} ({difference})")
            else:
                quality = quality_text(found)
                detected.append(f"{name} {difference}{f' ({quality})' if quality else ''}")
        parts = [listed(detected)] if detected else []
        if undetected:
            parts.append(f"no difference detected in {listed(undetected)}")
        if mechanism.failure is not None:
            parts = [f"left out, because a run failed: {mechanism.failure}"]
        sentences.append(f"{mechanism.label}: {'; '.join(parts) or 'nothing to compare'}.")
    return sentences


def violations_text(comparison: Comparison) -> str:
    """Which mechanisms had pages discarded while in use; empty if none had."""
    found = []
    for mechanism in comparison.mechanisms:
        counts = [count for count in mechanism.violations if count]
        if counts:
            runs = counted(sum(count is not None for count in mechanism.violations), "run")
            found.append(
                f"{mechanism.label} ({count_text(sum(counts))} pages, in {len(counts)} of {runs})"
            )
    return f"Not sound: pages were discarded while in use under {listed(found)}." if found else ""


def setup_text(comparison: Comparison) -> str:
    """What was run, in which guest, and how often."""
    seeds = comparison.seeds
    seeds_text = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return ", ".join(
        [
            comparison.scenario,
            f"{size_text(comparison.memory_bytes)} of {comparison.ram} RAM",
            counted(comparison.vcpus, "vCPU"),
            comparison.launcher,
            f"{counted(comparison.repeats, 'run')} of each, {seeds_text}",
        ]
    )


def method_text(comparison: Comparison, plus_minus: str = PLUS_MINUS) -> list[str]:
    """How the comparison was made and is to be read, in sentences."""
    repeats, mechanisms = comparison.repeats, len(comparison.mechanisms)
    sentences = []
    is_constant = all(_is_one_value(found.values) for found in _all_values(comparison))
    if repeats >= PAIRS_MIN or (repeats > 1 and is_constant):
        sentences.append(
            f"Differences are to {comparison.baseline.label}: the mean of the paired differences "
            f"{plus_minus} half the width of its interval (Student's t; "
            f"{100 * comparison.confidence:.0f} % for all {comparison.intervals} figures of a "
            f"mechanism together, {100 * comparison.confidence_each:.3g} % for each, after "
            f"Bonferroni)."
        )
    else:
        sentences.append(
            "One run of each has no interval, so that no difference can be claimed; repeat it."
            if repeats == 1
            else f"{repeats} runs of each have no interval that says anything, so that no "
            f"difference can be claimed where they differ: the mean difference to "
            f"{comparison.baseline.label} is shown with the least and the most; give --repeat "
            f"{_REPEATS_FEW} or so."
        )
    floors = sorted({figure.floor_fraction for figure in comparison.figures})
    sentences.append(
        f"A difference counts if its whole interval is beyond the noise floor, "
        f"{100 * floors[0]:.3g} % of the baseline's mean ({100 * floors[-1]:.3g} % for "
        f"percentiles, the resolution of their histograms)."
    )
    whole = design_repeats(mechanisms)
    if comparison.is_balanced:
        balance = "positions and neighbours are balanced"
    elif repeats % whole:
        balance = (
            f"positions and neighbours are balanced after {whole} repeats, not after {repeats}"
        )
    else:
        balance = "runs are missing, so that positions and neighbours are not balanced"
    sentences.append(
        f"Pairs have the same seed and lie in the same repeat; the order is a Williams design, "
        f"interleaved: {balance}."
    )
    if PAIRS_MIN <= repeats < _REPEATS_FEW and not is_constant:
        widths = [widths_per_spread(comparison.confidence_each, n) for n in (repeats, 2 * repeats)]
        sentences.append(
            f"{repeats} repeats are few: with {2 * repeats} the same noise would give intervals "
            f"{widths[0] / widths[1]:.1f} times narrower."
        )
    if repeats > 1 and is_constant:
        sentences.append(
            "All repeats are equal, whatever the seed: one run of each says as much, and no "
            "interval says how another workload would fare."
        )
    if repeats < comparison.repeats_planned:
        sentences.append(f"{comparison.repeats_planned} repeats were planned.")
    return sentences


def _all_values(comparison: Comparison) -> list[FigureOfMechanism]:
    return [found for figure in comparison.figures for found in figure.mechanisms]


def _is_one_value(values: Sequence[float | None]) -> bool:
    return len(set(values)) <= 1


def orders(comparison: Comparison) -> list[tuple[int, int, list[str]]]:
    """For each repeat: its number from 1, its seed, and the mechanisms in their order."""
    return [
        (
            repeat,
            seed,
            [run.mechanism for run in comparison.runs if run.repeat == repeat],
        )
        for repeat, seed in enumerate(comparison.seeds, start=1)
    ]


def groups(
    comparison: Comparison, number: int
) -> list[tuple[str, list[tuple[FigureOfAll, FoundDifference | None]]]]:
    """The figures of mechanism `number` under what can be said about them; none is empty.

    Figures that neither it nor the baseline measured are left out.
    """
    found: dict[str, list[tuple[FigureOfAll, FoundDifference | None]]] = {
        "Differences": [],
        "No difference detected": [],
        "Too few pairs for an interval": [],
        "Not measured in both, and so not compared": [],
    }
    differing, none, single, lonely = found
    for figure in comparison.figures:
        difference = figure.mechanisms[number].difference
        if difference is not None:
            kind = {"no difference detected": none, "too few pairs": single}
            found[kind.get(difference.verdict, differing)].append((figure, difference))
        elif figure.mechanisms[0].mean is not None or figure.mechanisms[number].mean is not None:
            found[lonely].append((figure, None))
    return [(title, rows) for title, rows in found.items() if rows]


def left_behind(comparison: Comparison) -> list[list[str]]:
    """What is resident and what was free and not returned at the end: a header, then a row of
    means for each mechanism.  Causes that no mechanism measured are left out."""
    found = [
        (name, comparison.figure(metric))
        for name, metric in _LEFT_BEHIND.items()
        if any(one.mean is not None for one in comparison.figure(metric).mechanisms)
    ]
    rows = [["", *(name for name, _ in found)]]
    for number, mechanism in enumerate(comparison.mechanisms):
        cells = [value_text(f.metric, f.mechanisms[number].mean) for _, f in found]
        rows.append([mechanism.label, *cells])
    return rows


def unmeasured(comparison: Comparison) -> list[str]:
    """The labels of the figures that no mechanism measured."""
    return [
        figure_label(figure.metric)
        for figure in comparison.figures
        if all(found.mean is None for found in figure.mechanisms)
    ]


def own_figures(comparison: Comparison) -> list[tuple[str, str]]:
    """Each mechanism that counts something of its own: its label, and the means of its figures."""
    found = []
    for mechanism in comparison.mechanisms:
        figures = []
        for name, values in mechanism.own.items():
            known = [value for value in values if value is not None]
            if known:
                mean = fmean(known)
                whole = round(mean) if mean >= _WHOLE_MIN or mean == int(mean) else mean
                figures.append(f"{label_of(name)} {keyed_text(name, whole)[0]}")
        if figures:
            found.append((mechanism.label, "; ".join(figures)))
    return found


def command_lines(argv: Sequence[str], width: int) -> list[str]:
    """The command that was given, for a shell, in lines that it reads as one.

    A line is longer than `width` only if it is a single word that is.
    """
    words = [shlex.quote(word) for word in ("python", "-m", "emulator", *argv[1:])]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width - 2:  # Room for the backslash.
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
