"""Lists through the page records."""

from typing import Any

import numpy as np
import pytest

from emulator.guest.mm.layout import PAGE
from tests.support.allocator_kernels import DEL, HEAD, INIT, ROTATE, TAIL, change_list

SENTINEL = 9


class Pages:
    """Nine records and a list head behind them."""

    def __init__(self) -> None:
        self.pages: Any = np.zeros(10, PAGE)
        self(INIT)

    def __call__(self, way: int, *pfns: int) -> list[int]:
        for pfn in pfns or (0,):
            change_list(self.pages, SENTINEL, pfn, way)
        forward, backward = [], []
        at = int(self.pages[SENTINEL]["next"])
        while at != SENTINEL:
            forward.append(at)
            at = int(self.pages[at]["next"])
        while (at := int(self.pages[at]["prev"])) != SENTINEL:
            backward.append(at)
        assert backward == forward[::-1]
        return forward


def test_added_at_the_head_the_last_is_first() -> None:
    assert Pages()(HEAD, 3, 5, 0) == [0, 5, 3]


def test_added_at_the_tail_the_last_is_last() -> None:
    assert Pages()(TAIL, 3, 5, 0) == [3, 5, 0]


@pytest.mark.parametrize("pfn", [1, 2, 3])
def test_a_page_leaves_a_list_without_its_head_being_known(pfn: int) -> None:
    pages = Pages()
    pages(TAIL, 1, 2, 3)
    assert pages(DEL, pfn) == [it for it in (1, 2, 3) if it != pfn]


def test_the_last_page_leaves_an_empty_list() -> None:
    pages = Pages()
    pages(HEAD, 4)
    assert pages(DEL, 4) == []
    assert pages(TAIL, 4) == [4]


@pytest.mark.parametrize(
    ("pfn", "expected"), [(1, [1, 2, 3, 4]), (2, [2, 3, 4, 1]), (4, [4, 1, 2, 3])]
)
def test_rotation_keeps_the_circle_s_order(pfn: int, expected: list[int]) -> None:
    pages = Pages()
    pages(TAIL, 1, 2, 3, 4)
    assert pages(ROTATE, pfn) == expected
