"""Percentiles out of the histograms that kernels fill."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.guest.histogram import bucket_indices, percentile
from emulator.guest.mm.layout import NR_BUCKETS
from tests.support.allocator_kernels import count_values

values = st.lists(st.integers(0, 2**43 - 1), min_size=1, max_size=50)


@given(values)
def test_kernels_and_arrays_count_alike(found: list[int]) -> None:
    counts = np.zeros(NR_BUCKETS, np.int64)
    count_values(np.array(found), counts)
    indices = bucket_indices(np.array(found))
    assert np.bincount(indices, minlength=NR_BUCKETS).tolist() == counts.tolist()


@given(values, st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_within_a_32nd_of_the_truth(found: list[int], fraction: float) -> None:
    counts = np.bincount(bucket_indices(np.array(found)), minlength=NR_BUCKETS)
    truth = sorted(found)[max(1, int(np.ceil(fraction * len(found)))) - 1]
    assert percentile(counts, fraction) == pytest.approx(truth, rel=1 / 32, abs=1e-9)


def test_nothing_counted_has_no_percentile() -> None:
    assert percentile(np.zeros(NR_BUCKETS, np.int64), 0.5) is None


def test_small_values_are_exact() -> None:
    counts = np.bincount(bucket_indices(np.arange(32)), minlength=NR_BUCKETS)
    assert [percentile(counts, (it + 1) / 32) for it in range(32)] == list(range(32))


def test_what_is_larger_than_the_last_bucket_counts_there() -> None:
    assert bucket_indices(np.array([2**60, -7])).tolist() == [NR_BUCKETS - 1, 0]
