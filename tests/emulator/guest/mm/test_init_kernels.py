"""Memory brought up: blocks as large as alignment allows, ascending."""

import numpy as np
import pytest

from emulator.guest.mm.layout import BUDDY, MOVABLE, NONE, RESERVED
from tests.support.guest import Guest, ZoneOf


def test_a_zone_begins_as_its_largest_blocks_in_ascending_order() -> None:
    guest = Guest(ZoneOf(pages=5 * 1024 + 100))
    assert guest.free_lists() == {
        (10, MOVABLE): [0, 1024, 2048, 3072, 4096],
        (6, MOVABLE): [5120],
        (5, MOVABLE): [5184],
        (2, MOVABLE): [5216],
    }
    assert guest.counts()[BUDDY] == 5 * 1024 + 100


def test_the_kernel_s_own_pages_are_not_free() -> None:
    guest = Guest(ZoneOf(pages=1024, reserved=37))
    assert guest.counts()[RESERVED] == 37
    assert guest.free_lists() == {
        (order, MOVABLE): [pfn]
        for order, pfn in [
            (0, 37),
            (1, 38),
            (3, 40),
            (4, 48),
            (6, 64),
            (7, 128),
            (8, 256),
            (9, 512),
        ]
    }
    assert np.flatnonzero(guest.ram.words).tolist() == list(range(37))
    assert guest.mm.actors[1]["faults"] == 37


def test_a_second_zone_begins_where_the_first_ends() -> None:
    guest = Guest(ZoneOf(pages=1536, name="DMA"), ZoneOf(pages=2048))
    assert guest.free_lists(0) == {(10, MOVABLE): [0], (9, MOVABLE): [1024]}
    assert guest.free_lists(1) == {(9, MOVABLE): [1536, 3072], (10, MOVABLE): [2048]}
    assert guest.mm.zones["managed"].tolist() == [1536, 2048]


@pytest.mark.parametrize("pages", [1024, 3000])
def test_only_the_heads_are_written(pages: int) -> None:
    guest = Guest(ZoneOf(pages=pages))
    heads = {pfn for blocks in guest.free_lists().values() for pfn in blocks}
    records = guest.mm.pages[:pages]
    assert {int(pfn) for pfn in np.flatnonzero(records["kind"] != NONE)} == heads
    untouched = np.delete(records, list(heads))
    assert not untouched.view(np.uint8).any()


def test_no_mechanism_is_told() -> None:
    guest = Guest(ZoneOf(pages=2048))
    assert guest.mm.hooks.control[0]["state"] == 0
    assert guest.mm.kernel[0]["doorbell"] == 0
