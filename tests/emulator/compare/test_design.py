"""The order of the runs: hand-worked designs, and balance of positions, neighbours and drift."""

from collections import Counter
from itertools import pairwise

import pytest

from emulator.compare.design import design_repeats, is_balanced, orders, plan


def test_two_mechanisms_are_run_abba_baab() -> None:
    assert orders(2, 4) == [(0, 1), (1, 0), (1, 0), (0, 1)]
    assert orders(2, 6) == [*orders(2, 4), *orders(2, 2)]


def test_four_mechanisms_are_run_as_williams_says() -> None:
    # 0 1 3 2 and its shifts by 1, 2 and 3; a mirror image is the shift by 2.
    assert orders(4, 4) == [(0, 1, 3, 2), (2, 3, 1, 0), (1, 2, 0, 3), (3, 0, 2, 1)]


@pytest.mark.parametrize("treatments", range(2, 12))
@pytest.mark.parametrize("designs", [1, 2])
def test_a_whole_design_balances_positions_and_neighbours(treatments: int, designs: int) -> None:
    repeats = designs * design_repeats(treatments)
    rows = orders(treatments, repeats)
    assert len(rows) == repeats
    assert all(sorted(row) == list(range(treatments)) for row in rows)
    places = Counter((place, t) for row in rows for place, t in enumerate(row))
    assert len(places) == treatments**2
    assert len(set(places.values())) == 1
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == treatments * (treatments - 1)
    assert len(set(neighbours.values())) == 1
    assert is_balanced(treatments, repeats)
    assert not is_balanced(treatments, repeats + 1)


@pytest.mark.parametrize("treatments", range(2, 12))
@pytest.mark.parametrize("repeats", [2, 4, 6, 10])
def test_a_steady_drift_cancels_after_an_even_number_of_repeats(
    treatments: int, repeats: int
) -> None:
    sums = Counter[int]()
    for run in plan(treatments, repeats, seed=1):
        sums[run.treatment] += run.position
    assert len(set(sums.values())) == 1


def test_a_plan_pairs_by_repeat_and_seed() -> None:
    runs = plan(3, 2, seed=40)
    assert [run.position for run in runs] == [1, 2, 3, 4, 5, 6]
    assert [run.repeat for run in runs] == [0, 0, 0, 1, 1, 1]
    assert [run.seed for run in runs] == [40, 40, 40, 41, 41, 41]
    assert [run.treatment for run in runs] == [0, 1, 2, 2, 1, 0]


@pytest.mark.parametrize(("treatments", "repeats"), [(1, 3), (2, 0)])
def test_nothing_to_order(treatments: int, repeats: int) -> None:
    with pytest.raises(ValueError, match="needs 2 and 1 or more"):
        orders(treatments, repeats)
