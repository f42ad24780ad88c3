"""Curves in a line of text."""

from hypothesis import given
from hypothesis import strategies as st

from emulator.report.sparkline import ASCII_BLOCKS, BLOCKS, Trail, resample, sparkline, thinned


def test_levels_are_equal_parts_of_the_height() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇██"
    assert sparkline([0, 4, 8], 8, ASCII_BLOCKS) == "_=#"


def test_unknown_is_a_gap_and_nothing_is_the_lowest_block() -> None:
    assert sparkline([None, 0, None], 8) == " ▁ "
    assert sparkline([0, 0], 0) == "▁▁"


def test_values_beyond_the_scale_are_held_to_it() -> None:
    assert sparkline([-5, 99], 8) == BLOCKS[0] + BLOCKS[-1]


def test_a_column_shows_its_largest_value() -> None:
    assert resample([0, 1, 2, 3], [5, 9, 1, 2], 2) == [9, 2]


def test_a_column_without_samples_repeats_what_was_known() -> None:
    assert resample([0.0, 10.0], [3, 7], 5) == [3, 3, 3, 3, 7]
    assert resample([4.0], [3], 3) == [3, 3, 3]
    assert resample([], [], 3) == [None, None, None]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=400), st.integers(1, 90))
def test_the_peak_survives_resampling(values: list[int], columns: int) -> None:
    shown = resample(range(len(values)), values, columns)
    assert len(shown) == columns
    assert max(value for value in shown if value is not None) == max(values)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=400), st.integers(4, 90))
def test_a_thinned_curve_keeps_its_ends_and_extremes(values: list[int], points_max: int) -> None:
    kept = thinned(range(len(values)), values, points_max)
    assert len(kept) <= points_max
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert kept == sorted(set(kept))
    picked = [values[i] for i in kept]
    assert max(picked) == max(values)
    assert min(picked) == min(values)


@given(st.lists(st.integers(1, 1000), max_size=500), st.integers(1, 20))
def test_a_trail_is_bounded_and_keeps_the_peak(values: list[int], columns: int) -> None:
    trail = Trail(columns)
    for value in values:
        trail.append(value)
    peaks = [peak for peak in trail.peaks() if peak is not None]
    assert len(peaks) == min(len(values), columns) or len(values) > columns
    assert len(peaks) <= columns
    assert max(peaks, default=0) == max(values, default=0)
