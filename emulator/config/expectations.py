"""What a scenario expects of its summary: `[[expect]]`, which makes a run a test.

A bound may be written as a size or a time; it is kept as a number in the unit that the metric's
name carries, so that `at_most = "2s"` on `hinting.reclaim_latency_ms.p99` is 2000.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from emulator.config.parameters import suggest
from emulator.config.units import Number, Unit, unit_of
from emulator.errors import ConfigError


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bound, or two, on one figure of the summary, in the figure's own unit."""

    metric: str  # A dotted path into the summary: "host.resident_bytes_end".
    at_least: Number | None = None
    at_most: Number | None = None
    equals: Number | str | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None and self.equals is None:
            raise ValueError("give at_least, at_most or equals")
        if self.equals is not None and not (self.at_least is None and self.at_most is None):
            raise ValueError("equals: cannot be combined with at_least or at_most")

    def holds(self, value: object) -> bool:
        """Whether a figure is as expected; one that was not measured (None) never is."""
        if self.equals is not None:
            return value is not None and value == self.equals
        if not isinstance(value, int | float):
            return False
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def decode_expectation(table: Mapping[str, Any], *, where: str) -> Expectation:
    """One `[[expect]]` table.  Raises `ConfigError` naming `where` and the key."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: must be a table with a metric and a bound")
    metric = table.get("metric")
    if not isinstance(metric, str) or not metric:
        raise ConfigError(f"{where}.metric: must be a figure, such as host.resident_bytes_end")
    unit = unit_of_metric(metric)
    bounds: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("at_least", "at_most", "equals"):
            bounds[key] = _bound(unit, key, value, where=f"{where}.{key}")
        elif key != "metric":
            allowed = Expectation.__struct_fields__
            raise ConfigError(f"{where}.{key}: unknown key{suggest(key, allowed)}")
    try:
        return Expectation(metric=metric, **bounds)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def encode_expectation(expectation: Expectation) -> dict[str, Any]:
    """The table that `decode_expectation` turns into an equal expectation."""
    return {k: v for k, v in msgspec.structs.asdict(expectation).items() if v is not None}


def unit_of_metric(metric: str) -> Unit | None:
    """The unit that the last part of a dotted path with a unit names, if any part does."""
    for part in reversed(metric.split(".")):
        unit = unit_of(part)[1]
        if unit is not None:
            return unit
    return None


def _bound(unit: Unit | None, key: str, value: Any, *, where: str) -> Number | str:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return value
    if isinstance(value, str) and unit is None and key == "equals":
        return value
    if not isinstance(value, str) or unit is None:
        need = f"as {unit.name} or with a unit" if unit else "plain, for its metric names no unit"
        raise ConfigError(f"{where}: {value!r} will not do: write a number, {need}")
    try:
        return unit.read(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
