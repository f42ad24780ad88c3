import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.units import (
    count,
    size_bytes,
    time_s,
    unit_of,
    write_size,
    write_time,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        (4096, 4096),
        ("4M", 4 << 20),
        ("4MiB", 4 << 20),
        (" 4 mib ", 4 << 20),
        ("80G", 80 << 30),
        ("1.5GiB", 3 << 29),
        ("1_000", 1000),
        ("1TiB", 1 << 40),
        (1e9, 1_000_000_000),
    ],
)
def test_sizes_are_powers_of_1024(text: object, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    "wrong",
    ["", "4MB", "4X", "-4M", "-0", "nan", "0.3KiB", "4M4", "١M", "1e999", "9999P"],
)
def test_what_is_not_a_size_is_refused_in_one_line(wrong: str) -> None:
    assert_no_size(wrong)


@pytest.mark.parametrize("wrong", [1.5, -1, True, None, [], math.inf, math.nan])
def test_nor_is_such_a_value(wrong: object) -> None:
    assert_no_size(wrong)


def assert_no_size(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"size|whole number") as raised:
        size_bytes(wrong)
    assert repr(wrong) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("2s", 2.0),
        (2, 2.0),
        ("0.1", 0.1),
        ("100us", 1e-4),
        ("0.1ms", 1e-4),
        ("7ns", 7e-9),
        ("10min", 600.0),
        ("1h", 3600.0),
    ],
)
def test_times_are_in_seconds(text: object, expected: float) -> None:
    assert time_s(text) == expected


@pytest.mark.parametrize("wrong", ["2m", "2 seconds", "soon", "", "-1s", math.nan, False, None])
def test_what_is_not_a_time_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="not a time"):
        time_s(wrong)


def test_counts_are_whole_and_carry_no_unit() -> None:
    assert count("20_000") == count(20_000) == 20_000
    for wrong in ("1.5", "3k", -1, "many"):
        with pytest.raises(ValueError, match="not a count"):
            count(wrong)


@given(st.integers(0, (1 << 63) - 1))
def test_a_written_size_reads_as_the_same(size: int) -> None:
    assert size_bytes(write_size(size)) == size


@given(st.floats(0, 1e12, allow_nan=False))
def test_a_written_time_reads_as_the_same(seconds: float) -> None:
    assert time_s(write_time(seconds)) == seconds


def test_written_forms_are_the_ones_people_use() -> None:
    assert [write_size(s) for s in (0, 1 << 30, 5000, 200 << 20)] == ["0", "1GiB", "5000", "200MiB"]
    assert [write_time(t) for t in (2.0, 0.25, 90.0, 1e-4)] == ["2s", "250ms", "90s", "100us"]


@pytest.mark.parametrize(
    ("field", "key", "unit"),
    [
        ("delay_s", "delay", "s"),
        ("size_bytes", "size", "bytes"),
        ("size_bytes_max", "size_max", "bytes"),
        ("pace_bytes_per_s", "pace", "bytes_per_s"),
        ("pace_operations_per_s", "pace", "per_s"),
        ("timeout_ms", "timeout", "ms"),
        ("order", "order", None),
        ("blocks_max", "blocks_max", None),
        ("pages", "pages", None),
        ("cpu_s_per_gib_returned", "cpu_s_per_gib_returned", None),
    ],
)
def test_a_field_name_holds_key_and_unit(field: str, key: str, unit: str | None) -> None:
    found_key, found_unit = unit_of(field)
    assert found_key == key
    assert (found_unit.name if found_unit else None) == unit


@given(
    st.sampled_from(["a_s", "a_ms", "a_us", "a_ns"]),
    st.one_of(st.integers(0, 10**15), st.floats(0, 1e9, allow_nan=False)),
)
def test_every_time_unit_writes_what_it_reads(field: str, value: float) -> None:
    unit = unit_of(field)[1]
    assert unit is not None
    assert unit.read(unit.write(value)) == value


@given(st.one_of(st.integers(0, 1 << 62), st.floats(0, 1e15, allow_nan=False)))
def test_a_written_rate_reads_as_the_same(value: float) -> None:
    unit = unit_of("discard_bytes_per_s")[1]
    assert unit is not None
    assert unit.read(unit.write(value)) == value


def test_rates_are_amounts_per_second() -> None:
    rate, pace = unit_of("rate_bytes_per_s")[1], unit_of("pace_per_s")[1]
    assert rate is not None and pace is not None
    assert rate.read("200MiB/s") == rate.read(200 << 20) == 200 << 20
    assert rate.read("7.8GiB/s") == 7.8 * (1 << 30)
    assert rate.write(200 << 20) == "200MiB/s"
    assert pace.read("5000/s") == pace.read(5000) == 5000
    for unit, wrong in ((rate, "200MiB/min"), (pace, "5k/s"), (rate, "fast")):
        with pytest.raises(ValueError, match="not a"):
            unit.read(wrong)
