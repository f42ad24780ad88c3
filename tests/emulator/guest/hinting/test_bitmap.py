"""A bitmap for each zone (N. N. Lal, patch v12 1/2), step by step on hand-checked frames."""

import numpy as np
import pytest

from emulator.config.parameters import decode_parameters
from emulator.errors import ConfigError
from emulator.guest.hinting.cycle import Report, Wait
from emulator.guest.hinting.mechanisms.bitmap import Bitmap, nbits_of
from emulator.guest.mm.layout import ISOLATED, MOVABLE, PAGE_SIZE, UNMOVABLE
from emulator.guest.mm.page_alloc_kernels import drain_pcps
from emulator.summary import lookup
from tests.support.allocator_kernels import alloc, free
from tests.support.guest import Guest, ZoneOf
from tests.support.runs import simulate, small

BLOCK = 16  # Pages of a block of order 4, which pass by the per-CPU lists.


class Lab:
    """A guest whose blocks of order 4 are all in use, under this mechanism, and its cycle."""

    def __init__(self, mechanism: Bitmap, *zones: ZoneOf, order: int = 4) -> None:
        self.mechanism = mechanism
        self.order = order
        self.guest = Guest(
            *(zones or (ZoneOf(pages=64 * BLOCK),)), pageblock_order=4, mechanism=mechanism
        )
        self.mm = self.guest.mm
        self.guest.set_pcp(batch=1, high=10_000)
        self.mm.zones["watermark_min"] = -1  # The last free block of a zone can be isolated, too.
        while int(alloc(self.mm, 0, order, MOVABLE)) >= 0:
            pass
        self.cycle = mechanism.start(self.mm, 1)

    def free(self, *blocks: int) -> None:
        """Free blocks, by their number."""
        for block in blocks:
            free(self.mm, 0, block << self.order, self.order)

    def reported(self) -> list[tuple[int, int]]:
        """What is reported now: (number of the block, order), in this order."""
        decision = self.cycle.step(0.0)
        assert isinstance(decision, Report)
        return [(int(b["pfn"]) >> self.order, int(b["order"])) for b in decision.batch]

    def figure(self, name: str) -> int | float | None:
        return self.mechanism.figures(self.mm)[name]

    def scheduled(self) -> bool:
        return bool(self.mm.hooks.control[0]["scheduled"])


def test_defaults_are_those_of_the_patch() -> None:
    assert (Bitmap().order, Bitmap().capacity) == (9, 16)  # MAX_ORDER - 2, as it was counted then
    assert Bitmap().threshold is None


@pytest.mark.parametrize(
    ("key", "value"), [("order", 11), ("capacity", 0), ("capacity", 1025), ("threshold", 0)]
)
def test_what_cannot_be_is_refused(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"mechanism\.{key}: {value} is not"):
        decode_parameters(Bitmap, {key: value}, where="mechanism")


def test_a_bit_for_each_block_and_one_more() -> None:
    assert [nbits_of(pages, 9) for pages in (512, 1023, 1024)] == [2, 2, 3]


def test_a_burst_below_the_threshold_waits_for_ever() -> None:
    lab = Lab(Bitmap(order=4, capacity=4))
    lab.free(2, 4, 6)
    for now_s in (0.0, 1e6):
        assert lab.cycle.step(now_s) == Wait(None)
    assert (lab.figure("bits_left"), lab.figure("stranded_bytes")) == (3, 3 * BLOCK * PAGE_SIZE)
    assert lab.mm.kernel[0]["doorbell"] == 0


def test_threshold_1_strands_nothing() -> None:
    lab = Lab(Bitmap(order=4, capacity=4, threshold=1))
    lab.free(2)
    assert lab.reported() == [(2, 4)]


def test_a_pass_is_in_ascending_order_and_takes_the_lock_for_each_bit() -> None:
    lab = Lab(Bitmap(order=4, capacity=4, threshold=5))
    lab.free(40, 2, 30)
    assert not lab.scheduled()
    lab.free(10, 20)
    assert lab.scheduled() and lab.mm.kernel[0]["doorbell"] == 1
    assert lab.reported() == [(2, 4), (10, 4), (20, 4), (30, 4)]
    assert lab.guest.counts()[ISOLATED] == 4 * BLOCK
    lab.cycle.drain(True, 0.0)
    assert lab.reported() == [(40, 4)]  # What is left at the zone's end goes, too.
    lab.cycle.drain(True, 0.0)
    assert lab.cycle.step(0.0) == Wait(None)
    assert not lab.scheduled()
    assert lab.guest.reported() == {block * BLOCK for block in (2, 10, 20, 30, 40)}
    assert lab.guest.counts()[ISOLATED] == 0
    # Put back as frees are, newest first, but no bit is set by it.
    assert lab.guest.free_list(4, MOVABLE) == [b * BLOCK for b in (40, 30, 20, 10, 2)]
    assert (lab.figure("bits_left"), lab.figure("passes")) == (0, 1)
    assert lab.figure("lock_acquisitions") == 5


def test_bits_of_blocks_that_merged_or_are_in_use_are_stale() -> None:
    lab = Lab(Bitmap(order=4, capacity=4))
    lab.free(3, 2)  # One block of order 5, whose bit is that of 2.
    lab.free(8)
    alloc(lab.mm, 0, 4, MOVABLE)  # 8 again, with its bit.
    lab.free(12)
    assert lab.reported() == [(2, 5), (12, 4)]
    assert lab.figure("stale_bits") == 2


def test_a_block_is_reported_again_when_its_buddy_is_freed() -> None:
    lab = Lab(Bitmap(order=4, capacity=1))
    lab.free(2)
    assert lab.reported() == [(2, 4)]
    lab.cycle.drain(True, 0.0)
    assert lab.cycle.step(0.0) == Wait(None)
    lab.free(3)
    assert lab.reported() == [(2, 5)]


def test_a_second_free_finds_the_bit_set_and_does_not_count() -> None:
    lab = Lab(Bitmap(order=4, capacity=2))
    lab.free(2)
    alloc(lab.mm, 0, 4, MOVABLE)
    lab.free(2)
    assert not lab.scheduled()
    assert (lab.figure("frees_with_bit_set"), lab.figure("bits_left")) == (1, 1)


@pytest.mark.parametrize("look_again", [False, True])
def test_bits_set_behind_a_pass_wait_for_the_next_free(look_again: bool) -> None:
    lab = Lab(Bitmap(order=4, capacity=2, look_again=look_again))
    lab.free(40, 50)
    assert lab.reported() == [(40, 4), (50, 4)]
    lab.free(2, 4, 6)  # More than the threshold.
    lab.cycle.drain(True, 0.0)
    if look_again:
        assert lab.cycle.step(5.0) == Wait(5.0)
        assert lab.reported() == [(2, 4), (4, 4)]
        return
    assert lab.cycle.step(5.0) == Wait(None)
    assert (lab.figure("bits_left"), lab.scheduled()) == (3, False)
    lab.free(8)
    assert lab.reported() == [(2, 4), (4, 4)]


def test_bits_set_ahead_of_a_pass_belong_to_it() -> None:
    lab = Lab(Bitmap(order=4, capacity=2))
    lab.free(2, 4)
    assert lab.reported() == [(2, 4), (4, 4)]
    lab.free(60)
    lab.cycle.drain(True, 0.0)
    assert lab.reported() == [(60, 4)]


@pytest.mark.parametrize("clear_locked", [False, True])
def test_a_block_that_cannot_be_isolated_is_forgotten(clear_locked: bool) -> None:
    lab = Lab(Bitmap(order=4, capacity=2, clear_locked=clear_locked))
    lab.mm.zones[0]["watermark_min"] = 4096
    lab.free(2, 4)
    assert lab.cycle.step(0.0) == Wait(None)
    assert (lab.figure("isolation_failures"), lab.figure("bits_left")) == (2, 0)
    assert lab.figure("lost_frees") == 0
    lab.guest.counts()


def test_the_type_of_a_pageblock_survives() -> None:
    lab = Lab(Bitmap(order=4, capacity=2))
    lab.mm.pageblocks[2] = UNMOVABLE
    lab.free(2, 4)
    lab.reported()
    lab.cycle.drain(True, 0.0)
    assert lab.guest.free_list(4, UNMOVABLE) == [2 * BLOCK]
    assert lab.guest.free_list(4, MOVABLE) == [4 * BLOCK]


def test_each_zone_has_its_own_bits_and_threshold() -> None:
    lab = Lab(Bitmap(order=4, capacity=3), ZoneOf(pages=32 * BLOCK), ZoneOf(pages=32 * BLOCK))
    lab.free(2, 4)
    lab.free(34, 36)
    assert not lab.scheduled()
    lab.free(38)
    assert lab.reported() == [(34, 4), (36, 4), (38, 4)]
    lab.cycle.drain(True, 0.0)
    assert lab.cycle.step(0.0) == Wait(None)
    assert lab.figure("bits_left") == 2


def test_bits_lie_in_words_of_64() -> None:
    lab = Lab(Bitmap(order=0, capacity=8, threshold=5), ZoneOf(pages=256), order=0)
    pages = [0, 63, 64, 127, 255]
    lab.free(*pages)
    drain_pcps(lab.mm, 0)
    words = lab.mm.hooks.words["bits"][:4]
    assert [hex(word) for word in words.tolist()] == [
        "0x8000000000000001",
        "0x8000000000000001",
        "0x0",
        "0x8000000000000000",
    ]
    assert lab.reported() == [(page, 0) for page in pages]
    assert not words.any()


def test_a_failed_report_marks_nothing_and_the_pass_goes_on() -> None:
    lab = Lab(Bitmap(order=4, capacity=1, threshold=2))
    lab.free(2, 4)
    assert lab.reported() == [(2, 4)]
    lab.cycle.drain(False, 0.0)
    assert lab.reported() == [(4, 4)]
    lab.cycle.drain(True, 0.0)
    assert lab.guest.reported() == {4 * BLOCK}


def test_bitmaps_are_as_small_as_the_patch_makes_them() -> None:
    lab = Lab(Bitmap(order=4), ZoneOf(pages=100 * BLOCK), ZoneOf(pages=63 * BLOCK))
    bitmaps = lab.mm.hooks.bitmaps
    assert bitmaps["nbits"].tolist() == [101, 64]
    assert bitmaps["first_word"].tolist() == [0, 2]
    assert len(lab.mm.hooks.words) >= 3
    assert np.dtype("<u8").itemsize * len(lab.mm.hooks.words) == lab.figure("bitmap_bytes")


def test_a_whole_guest_is_sound() -> None:
    mechanism = 'mechanism={name="bitmap", order=4, capacity=4}'
    done = simulate(small("churn", mechanism)).summary
    assert done.oracle.violations == 0
    assert done.hinting.returned_bytes
    assert lookup(done, "hinting.mechanism.bits_set") > 0
