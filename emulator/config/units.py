"""Sizes, times, rates and counts as people write them: `4MiB`, `80G`, `250ms`, `200MiB/s`.

A scenario's keys carry no unit, its values do; a field's name carries the unit that code computes
in.  `unit_of("delay_s")` is the key `delay` and the unit that turns `"250ms"` into 0.25.  Every
unit's `write` is the inverse of its `read`, exactly: `read(write(x)) == x`.

Numbers go through `Decimal`, so that `"0.1ms"` is the float nearest to 0.0001.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

Number = int | float

PAGE_BYTES: Final = 4096

_NUMBER: Final = re.compile(
    r"\s*(?P<sign>[+-]?)(?P<digits>\d+(?:_\d+)*(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)"
    r"\s*(?P<unit>[^\d\s]*)\s*",
    re.ASCII,
)
_SIZES: Final = {"": 1, "b": 1} | {
    prefix + suffix: 1024**power
    for power, prefix in enumerate("kmgtp", start=1)
    for suffix in ("", "ib")
}
_TIMES: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "": Decimal(1),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
}
_SIZE_BYTES_MAX: Final = 1 << 63


def size_bytes(value: object) -> int:
    """Bytes of `"4M"`, `"4MiB"`, `"1.5GiB"` or of a plain number; powers of 1024 only.

    Raises `ValueError` for anything else, such as `"4MB"`, which could be read two ways.
    """
    exact = _bytes(value, "size", "4MiB, 512K or 80G")
    if exact != int(exact):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(exact)


def time_s(value: object) -> float:
    """Seconds of `"250ms"`, `"2s"`, `"10min"` or of a plain number of seconds.

    Raises `ValueError` for anything else, such as `"2m"`, which could be read two ways.
    """
    return float(_time(value))


def count(value: object) -> int:
    """A whole number, not negative: 20000, or `"20_000"`.  Raises `ValueError` otherwise."""
    amount, unit = _split(value, "count", "16 or 20_000")
    if unit or amount != int(amount):
        raise ValueError(f"{value!r} is not a count: write a whole number like 16 or 20_000")
    return int(amount)


def write_size(value: Number) -> str:
    """The shortest exact form: 1073741824 is `1GiB`, 5000 is `5000`."""
    for power, prefix in reversed(list(enumerate("KMGTP", start=1))):
        if value and value % 1024**power == 0:
            return f"{int(value) >> (10 * power)}{prefix}iB"
    return str(int(value))


def write_time(value: Number) -> str:
    """The form people would write, exact: 0.25 is `250ms`, 90.0 is `90s`."""
    for unit in ("s", "ms", "us", "ns"):
        exact = Decimal(repr(value)) / _TIMES[unit]
        text = f"{int(exact)}{unit}"
        if exact == int(exact) and time_s(text) == value:
            return text
    return f"{float(value)!r}s"


@dataclass(frozen=True, slots=True)
class Unit:
    """How the values of one kind of field are read and written."""

    name: str  # As it ends a field's name: "bytes", "ms", "bytes_per_s".
    read: Callable[[object], Number]
    write: Callable[[Number], str | Number]


def unit_of(field: str) -> tuple[str, Unit | None]:
    """The scenario key of a field, and its unit if its name ends in one.

    `delay_s` -> `delay`, `size_bytes_max` -> `size_max`, `rate_bytes_per_s` -> `rate`,
    `order` -> (`order`, None).
    """
    match = _FIELD.fullmatch(field)
    if match is None:
        return field, None
    name = match["unit"]
    if name.endswith("per_s") and name != "bytes_per_s":
        name = "per_s"
    return match["stem"] + (match["qualifier"] or ""), _UNITS[name]


_FIELD: Final = re.compile(
    r"(?P<stem>.+?)_(?P<unit>(?:(?:bytes|pages|operations|blocks)_)?per_s|bytes|s|ms|us|ns)"
    r"(?P<qualifier>_(?:min|max|start|end|peak))?"
)


def _split(value: object, kind: str, such_as: str) -> tuple[Decimal, str]:
    """The amount and the lower-case unit of a string or a plain number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{value!r} is not a {kind}: it must be finite and not negative")
        return Decimal(repr(value)), ""
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a {kind}: write it like {such_as}")
    if match["sign"] == "-":
        raise ValueError(f"{value!r} is not a {kind}: it must not be negative")
    return Decimal(match["digits"].replace("_", "")), match["unit"].lower()


def _bytes(value: object, kind: str, such_as: str) -> Decimal:
    amount, unit = _split(value, kind, such_as)
    if unit not in _SIZES:
        raise ValueError(f"{value!r} is not a {kind}: write it like {such_as}")
    exact: Decimal = amount * _SIZES[unit]
    if exact >= _SIZE_BYTES_MAX:
        raise ValueError(f"{value!r} is too large: a {kind} must be below 8192P")
    return exact


def _time(value: object) -> Decimal:
    amount, unit = _split(value, "time", "250ms, 2s or 10min")
    if unit not in _TIMES:
        raise ValueError(f"{value!r} is not a time: write it like 250ms, 2s or 10min")
    return amount * _TIMES[unit]


def _plain(exact: Decimal) -> Number:
    return int(exact) if exact == int(exact) else float(exact)


def _per_second(value: object, kind: str, such_as: str) -> object:
    """What stands before `/s`; a plain number is per second already."""
    if not isinstance(value, str):
        return value
    amount, slash, second = value.partition("/")
    if slash and second.strip() != "s":
        raise ValueError(f"{value!r} is not a {kind}: write it like {such_as}")
    return amount


def _read_byte_rate(value: object) -> Number:
    return _plain(_bytes(_per_second(value, "rate", "200MiB/s"), "rate", "200MiB/s"))


def _write_byte_rate(value: Number) -> str:
    return f"{write_size(value) if value == int(value) else repr(value)}/s"


def _read_rate(value: object) -> Number:
    amount, unit = _split(_per_second(value, "rate", "5000/s"), "rate", "5000/s")
    if unit:
        raise ValueError(f"{value!r} is not a rate: write it like 5000/s")
    return _plain(amount)


def _reader_of_times(unit: str) -> Callable[[object], Number]:
    return lambda value: _plain(_time(value) / _TIMES[unit])


def _writer_of_times(unit: str) -> Callable[[Number], str]:
    # `Decimal` with an exponent, not a product of floats, keeps the inverse exact.
    def write(value: Number) -> str:
        return write_time(value) if unit == "s" else f"{value!r}{unit}"

    return write


_UNITS: Final = {
    "bytes": Unit("bytes", size_bytes, write_size),
    "bytes_per_s": Unit("bytes_per_s", _read_byte_rate, _write_byte_rate),
    "per_s": Unit("per_s", _read_rate, lambda rate: rate),
    **{u: Unit(u, _reader_of_times(u), _writer_of_times(u)) for u in ("s", "ms", "us", "ns")},
}
