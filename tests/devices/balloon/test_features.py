import pytest

from devices.balloon.features import RING_FEATURES, feature_bits, queue_indices
from devices.balloon.layout import (
    F_FREE_PAGE_HINT,
    F_MUST_TELL_HOST,
    F_PAGE_POISON,
    F_PAGE_REPORTING,
    F_STATS_VQ,
)

STATS, HINT, REPORTING = 1 << F_STATS_VQ, 1 << F_FREE_PAGE_HINT, 1 << F_PAGE_REPORTING


@pytest.mark.parametrize(
    ("features", "index"),
    [
        (REPORTING, 2),
        (REPORTING | STATS, 3),
        (REPORTING | HINT, 3),
        (REPORTING | STATS | HINT, 4),
        (REPORTING | 1 << F_MUST_TELL_HOST | 1 << F_PAGE_POISON | 1 << 32, 2),
    ],
)
def test_the_reporting_queue_is_numbered_as_linux_does(features: int, index: int) -> None:
    assert queue_indices(features)["reporting"] == index


def test_a_queue_exists_only_with_its_feature() -> None:
    assert queue_indices(0) == {"inflate": 0, "deflate": 1}
    assert queue_indices(STATS | HINT) == {"inflate": 0, "deflate": 1, "stats": 2, "free_page": 3}


def test_features_have_names() -> None:
    assert feature_bits(["page_reporting", "stats_vq"]) == REPORTING | STATS | RING_FEATURES
    assert RING_FEATURES >> 32 == 1  # VERSION_1; RING_PACKED, bit 34, it has not.
    assert feature_bits(["balloon_hint"]) == 1 << 2 | RING_FEATURES
    for other in ("deflate_on_oom", "free_page_hint"):
        with pytest.raises(ValueError, match=f"balloon_hint and {other} are in the same place"):
            feature_bits([other, "balloon_hint"])
    with pytest.raises(ValueError, match="no feature 'ring_packed'; there are: must_tell_host, "):
        feature_bits(["ring_packed"])
