"""Numbers as people read them: units, rounding, and the words for what is missing.

Every figure in the text, the live view and the HTML page goes through this module, so that the
same figure reads the same everywhere.  Three significant digits are shown; the exact value is kept
beside them by `exact_*`.  A figure that was not measured (`None`) is called so and never becomes 0.

Sizes are binary (1 KiB = 1024 B), as the kernel counts them.
"""

from collections.abc import Sequence
from typing import Final

NOT_MEASURED: Final = "not measured"

_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIME_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_COUNT_UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _three_digits(value: float) -> str:
    """`value` with three significant digits and without an exponent: 1.25, 12.5, 125, 1250."""
    magnitude = abs(value)
    decimals = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size_text(size_bytes: float | None) -> str:
    """A size in the largest unit that keeps it at 1 or more: `972 MiB`, `1.25 GiB`, `0 B`."""
    if size_bytes is None:
        return NOT_MEASURED
    value, unit = float(size_bytes), 0
    while abs(value) >= 1023.5 and unit < len(_SIZE_UNITS) - 1:
        value /= 1024.0
        unit += 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{_three_digits(value)} {_SIZE_UNITS[unit]}"


def duration_text(duration_s: float | None) -> str:
    """A time span given in seconds: `640 ns`, `12.5 us`, `3.1 ms`, `8.4 s`, `40 min 05 s`."""
    if duration_s is None:
        return NOT_MEASURED
    if duration_s == 0:
        return "0 s"
    magnitude = abs(duration_s)
    if magnitude >= 119.5:
        seconds = round(duration_s)
        if seconds >= 7200:
            minutes = round(seconds / 60)
            return f"{minutes // 60} h {minutes % 60:02d} min"
        return f"{seconds // 60} min {seconds % 60:02d} s"
    for scale, unit in _TIME_UNITS:
        # 0.9995 ms rounds to 1 ms, so it must not be shown as 1000 us.
        if magnitude >= scale * 0.9995:
            return f"{_three_digits(duration_s / scale)} {unit}"
    return f"{duration_s * 1e9:.2g} ns"


def milliseconds_text(duration_ms: float | None) -> str:
    """`duration_text` of a time span given in milliseconds."""
    return duration_text(None if duration_ms is None else duration_ms * 1e-3)


def microseconds_text(duration_us: float | None) -> str:
    """`duration_text` of a time span given in microseconds."""
    return duration_text(None if duration_us is None else duration_us * 1e-6)


def nanoseconds_text(duration_ns: float | None) -> str:
    """`duration_text` of a time span given in nanoseconds."""
    return duration_text(None if duration_ns is None else duration_ns * 1e-9)


def count_text(count: float | None) -> str:
    """A count: all digits below ten million (`44`, `1,234,567`), three digits above (`12.3 M`)."""
    if count is None:
        return NOT_MEASURED
    if abs(count) >= 1e7:
        return _scaled(count)
    return f"{round(count):,}"


def rate_text(per_second: float | None) -> str:
    """A rate given per second: `0 /s`, `850 /s`, `1.24 M/s`."""
    if per_second is None:
        return NOT_MEASURED
    scaled = _scaled(per_second)
    return f"{scaled}/s" if scaled[-1].isalpha() else f"{scaled} /s"


def _scaled(value: float) -> str:
    for scale, unit in _COUNT_UNITS:
        if abs(value) >= scale * 0.9995:
            return f"{_three_digits(value / scale)} {unit}"
    return _three_digits(value)


def decimal_text(value: float | None) -> str:
    """A number without a unit: `3.14`, `0.00025`, `12,500`."""
    if value is None:
        return NOT_MEASURED
    if value == 0 or 0.1 <= abs(value) < 1e4:
        return _three_digits(value)
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.3g}"


def percent_text(fraction: float | None) -> str:
    """A fraction of 1 in per cent; only all is `100 %` and only nothing is `0 %`."""
    if fraction is None:
        return NOT_MEASURED
    percent = fraction * 100
    if 0 < percent < 0.5:
        return "< 1 %"
    if 99.5 <= percent < 100:
        return "> 99 %"
    return f"{percent:.0f} %"


def exact_text(value: float | None, unit: str) -> str:
    """The unrounded value with its unit in full, for a tooltip: `922,746,880 bytes`."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,} {unit}".rstrip()
    return f"{value!r} {unit}".rstrip()


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where needed: `1 report`, `44 reports`."""
    return f"{count_text(count)} {noun}{'' if count == 1 else 's'}"


def listed(phrases: Sequence[str]) -> str:
    """Phrases as an enumeration: `a`, `a and b`, `a, b and c`; empty for none."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def unit_key(metric: str) -> str:
    """The part of a dotted metric that names its unit, or else its last part.

    `hinting.reclaim_latency_ms.p99` is in the unit of `reclaim_latency_ms`.
    """
    parts = metric.split(".")
    for part in reversed(parts):
        if "_bytes" in part or part.endswith(("_s", "_ms", "_us", "_ns")):
            return part
    return parts[-1]


def label_of(key: str) -> str:
    """The words of a key of the summary, its unit taken off: `bytes_hogged` stays, `idle_s` is
    `idle`, `resident_bytes` is `resident`."""
    for suffix in ("_bytes", "_per_s", "_ms", "_us", "_ns", "_s"):
        if key.endswith(suffix) and len(key) > len(suffix):
            words = key.removesuffix(suffix)
            return words.replace("_", " ") + (" per second" if suffix == "_per_s" else "")
    return key.replace("_", " ")


def keyed_text(key: str, value: object) -> tuple[str, str]:
    """The reading and the exact value of any figure whose unit is at the end of its key.

    This is for figures that only the workload knows.  Returns the text and the tooltip.
    """
    if value is None:
        return NOT_MEASURED, NOT_MEASURED
    if isinstance(value, bool):
        return ("yes" if value else "no"), str(value).lower()
    if not isinstance(value, int | float):
        return str(value), str(value)
    if "_bytes" in key or key.startswith("bytes_") or key == "bytes":
        return size_text(value), exact_text(value, "bytes")
    if key.endswith("_per_s"):
        return rate_text(value), exact_text(value, "per second")
    for suffix, reading, unit in (
        ("_ms", milliseconds_text, "milliseconds"),
        ("_us", microseconds_text, "microseconds"),
        ("_ns", nanoseconds_text, "nanoseconds"),
        ("_s", duration_text, "seconds"),
    ):
        if key.endswith(suffix):
            return reading(value), exact_text(value, unit)
    return (count_text(value) if isinstance(value, int) else decimal_text(value)), str(value)
