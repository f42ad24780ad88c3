"""Recordings laid on one grid: what lies between samples, and what cannot be laid."""

import numpy as np
import pytest

from emulator.capacity.footprints import POINTS_MAX, lay_footprints
from emulator.errors import ConfigError


def test_between_samples_it_is_interpolated_and_the_last_is_the_next_period() -> None:
    # Apart by 1, 1, 1 and 3 seconds: the middle one of the distances is 1.
    found = lay_footprints([([0, 1, 2, 3, 6], [0, 10, 20, 20, 50])])
    assert found.step_s == 1.0
    assert found.curves[0].tolist() == [0, 10, 20, 20, 30, 40]
    assert (found.points, found.period_s, found.peak_bytes) == (6, 6.0, 50)
    assert found.mean_bytes == 20.0
    assert found.jump == 1.0  # From 50 back to 0, of a peak of 50.


def test_the_finest_recording_gives_the_step_and_each_keeps_its_own_period() -> None:
    coarse = ([0, 10, 20], [5, 5, 5])
    fine = ([100, 102, 104, 106], [1, 2, 3, 1])
    found = lay_footprints([coarse, fine])
    assert found.step_s == 2.0
    assert [len(curve) for curve in found.curves] == [10, 3]
    assert found.curves[1].tolist() == [1, 2, 3]
    assert found.mean_bytes == (5 + 2) / 2  # Recordings count alike, however long.


def test_what_came_before_is_left_out() -> None:
    times = np.arange(21.0)
    sizes = np.where(times < 10, 0.0, 7.0)
    found = lay_footprints([(times.tolist(), sizes.tolist())], after_s=10)
    assert found.period_s == 10.0
    assert (found.mean_bytes, found.jump) == (7.0, 0.0)


def test_a_grid_stays_bounded_whatever_the_samples_are() -> None:
    times = np.linspace(0, 3600, 100_000)
    found = lay_footprints([(times.tolist(), np.ones(100_000).tolist())])
    assert found.points == POINTS_MAX


def test_times_that_are_there_twice_count_once() -> None:
    assert lay_footprints([([0, 0, 1, 2], [3, 9, 3, 3])]).curves[0].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("recordings", "after_s", "says"),
    [
        ([], 0.0, "no recording"),
        ([([0.0], [1.0])], 0.0, "1 samples"),
        ([([5.0, 5.0], [1.0, 2.0])], 0.0, "1 samples"),
        ([([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])], 1.5, "1 samples.* after 1500ms"),
    ],
)
def test_what_has_no_time_is_refused(
    recordings: list[tuple[list[float], list[float]]], after_s: float, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        lay_footprints(recordings, after_s=after_s)
