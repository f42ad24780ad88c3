from typing import Any

import pytest

from emulator.config.expectations import (
    Expectation,
    decode_expectation,
    encode_expectation,
    unit_of_metric,
)
from emulator.errors import ConfigError


@pytest.mark.parametrize(
    ("metric", "bound", "value"),
    [
        ("host.resident_bytes_end", "200MiB", 200 << 20),
        ("hinting.reclaim_latency_ms.p99", "2s", 2000),
        ("vcpus.alloc_latency_ns.p50", "1.5us", 1500),
        ("cost.zone_lock_hold_us.max", "1ms", 1000),
        ("wall_s", "2min", 120),
        ("vcpus.operations_per_s", "5000/s", 5000),
        ("host.footprint_gib_min", 1.5, 1.5),
        ("cost.cpu_s_per_gib_returned", 0.25, 0.25),
    ],
)
def test_a_bound_is_kept_in_the_unit_of_its_metric(metric: str, bound: Any, value: float) -> None:
    assert decode_expectation({"metric": metric, "at_most": bound}, where="e") == Expectation(
        metric=metric, at_most=value
    )


def test_an_encoded_expectation_decodes_to_the_same() -> None:
    expectation = Expectation(metric="host.cpu_s", at_least=0.5, at_most=2)
    assert decode_expectation(encode_expectation(expectation), where="e") == expectation


@pytest.mark.parametrize(
    ("bounds", "value", "holds"),
    [
        ({"at_most": 5}, 5, True),
        ({"at_most": 5}, 5.1, False),
        ({"at_least": 5}, 5, True),
        ({"at_least": 5}, 4, False),
        ({"at_least": 2, "at_most": 3}, 4, False),
        ({"equals": 0}, 0, True),
        ({"equals": 0}, 1, False),
        ({"equals": "off"}, "off", True),
        ({"at_most": 5}, None, False),
        ({"equals": 0}, None, False),
        ({"at_most": 5}, "many", False),
    ],
)
def test_a_bound_holds_or_not(bounds: dict[str, Any], value: object, holds: bool) -> None:
    assert Expectation(metric="m", **bounds).holds(value) is holds


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "expect.0.metric: must be a figure"),
        ("x", "expect.0: must be a table"),
        ({"metric": "a"}, "expect.0: give at_least, at_most or equals"),
        ({"metric": "a", "at_mots": 1}, "expect.0.at_mots: unknown key; did you mean 'at_most'?"),
        ({"metric": "a", "equals": 1, "at_most": 1}, "expect.0: equals: cannot be combined"),
        ({"metric": "oracle.violations", "at_most": "2s"}, "expect.0.at_most: '2s' will not do"),
        ({"metric": "host.cpu_s", "at_most": "2MiB"}, "expect.0.at_most: '2MiB' is not a time"),
        ({"metric": "host.cpu_s", "at_most": True}, "expect.0.at_most: True will not do"),
    ],
)
def test_a_bad_expectation_is_refused_with_its_place(table: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decode_expectation(table, where="expect.0")
    assert str(raised.value).startswith(message)


def test_the_last_part_with_a_unit_counts() -> None:
    unit = unit_of_metric("workload.pause_s.copied_bytes.max")
    assert unit is not None and unit.name == "bytes"
    assert unit_of_metric("oracle.violations") is None
