"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.report import wording
from emulator.report.expectations import expectation_words
from emulator.summary import ExpectationResult


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (4096, "4 KiB"),
        (972 * 2**20, "972 MiB"),
        (2**20 - 1, "1 MiB"),  # Not 1024 KiB.
        (5 * 2**28, "1.25 GiB"),
        (80 * 2**30, "80 GiB"),
        (-3 * 2**20, "-3 MiB"),
        (None, "not measured"),
    ],
)
def test_size(size: int | None, text: str) -> None:
    assert wording.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (640e-9, "640 ns"),
        (12.5e-6, "12.5 us"),
        (0.99999e-3, "1 ms"),  # Not 1000 us.
        (0.125, "125 ms"),
        (8.4, "8.4 s"),
        (119.0, "119 s"),
        (119.6, "2 min 00 s"),
        (2405.0, "40 min 05 s"),
        (7260.0, "2 h 01 min"),
        (None, "not measured"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert wording.duration_text(seconds) == text


def test_counts_rates_and_percentages() -> None:
    assert wording.count_text(1_234_567) == "1,234,567"
    assert wording.count_text(12_345_678) == "12.3 M"
    assert wording.rate_text(1_240_000.0) == "1.24 M/s"
    assert wording.rate_text(0) == "0 /s"
    assert wording.percent_text(0.0001) == "< 1 %"
    assert wording.percent_text(0.9999) == "> 99 %"
    assert wording.percent_text(1.0) == "100 %"
    assert wording.percent_text(0.0) == "0 %"
    assert wording.exact_text(922_746_880, "bytes") == "922,746,880 bytes"


def test_lists() -> None:
    assert wording.listed([]) == ""
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.counted(1, "report") == "1 report"
    assert wording.counted(2, "report") == "2 reports"


def test_unit_comes_from_the_key() -> None:
    assert wording.keyed_text("hogged_bytes", 2**20) == ("1 MiB", "1,048,576 bytes")
    assert wording.keyed_text("fill_s", 2.5)[0] == "2.5 s"
    assert wording.keyed_text("faults_per_s", 2000)[0] == "2 k/s"
    assert wording.keyed_text("iterations", 2)[0] == "2"
    assert wording.keyed_text("idle_s", None)[0] == "not measured"
    assert wording.unit_key("hinting.reclaim_latency_ms.p99") == "reclaim_latency_ms"
    assert wording.unit_key("phases.0.resident_bytes_end") == "resident_bytes_end"


@given(st.integers(0, 2**50))
def test_a_size_is_right_to_three_digits(size: int) -> None:
    number, unit = wording.size_text(size).split()
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert float(number) * factor == pytest.approx(size, rel=0.006)
    assert float(number) < 1024


def test_a_failure_hidden_by_rounding_is_given_exactly() -> None:
    bound = 200 * 2**20
    failed = ExpectationResult(
        metric="host.resident_bytes_end", value=bound + 1, passed=False, at_most=bound
    )
    words = expectation_words(failed)
    assert words == "is 209,715,201 bytes, expected at most 209,715,200 bytes"
