"""The statistics queue: both halves on one array, and drivers that send what they like."""

import numpy as np
import pytest

from devices.balloon.layout import STATS_BYTES_MAX, STATS_ENTRY, STATS_TAGS
from devices.virtio.chain import NO_SEGMENTS, segments
from tests.devices.balloon.machines import DATA_ADDR, BalloonMachine


def entries(*pairs: tuple[int, int]) -> bytes:
    return np.array(list(pairs), STATS_ENTRY).tobytes()


def test_figures_arrive_by_name_and_the_buffer_is_held_until_asked_for() -> None:
    machine = BalloonMachine()
    driver = machine.stats()
    figures = {"free_bytes": 5 << 20, "total_bytes": 1 << 30, "major_faults": 7}
    driver.add(figures)
    assert driver.publish()
    machine.serve("stats")
    assert machine.device.statistics("stats").latest == figures
    assert not driver.asked()
    assert machine.device.ask_statistics()
    assert driver.asked()
    assert not machine.device.ask_statistics()  # Nothing is held: nobody is called.
    driver.add({"free_bytes": 1})
    driver.publish()
    machine.serve("stats")
    seen = machine.device.statistics("stats")
    assert (seen.latest, seen.updates) == ({"free_bytes": 1}, 2)
    machine.device.validate()


def test_7_an_extra_buffer_frees_the_older_one_at_once() -> None:
    machine = BalloonMachine()
    for value in (1, 2, 3):
        machine.send("stats", entries((4, value)))
        machine.serve("stats")
    assert len(machine.drivers["stats"].pop_used()) == 2
    seen = machine.device.statistics("stats")
    assert (seen.extra_buffers, seen.latest) == (2, {"free_bytes": 3})
    machine.device.validate()


@pytest.mark.parametrize("tail", [0, 2, 6, 9])
def test_7_whole_entries_are_taken_and_the_tail_is_ignored(tail: int) -> None:
    machine = BalloonMachine()
    machine.send("stats", entries((5, 1 << 63), (0, 0)) + bytes(tail))
    machine.serve("stats")
    seen = machine.device.statistics("stats")
    assert seen.latest == {"total_bytes": 1 << 63, "swap_in_bytes": 0}
    assert seen.ignored_bytes == tail


def test_7_unknown_tags_are_ignored_and_any_order_and_subset_will_do() -> None:
    machine = BalloonMachine()
    machine.send("stats", entries((15, 3), (65535, 9), (16, 9), (0, 1), (15, 4)))
    machine.serve("stats")
    seen = machine.device.statistics("stats")
    assert seen.latest == {"direct_reclaims": 4, "swap_in_bytes": 1}
    assert seen.unknown_tags == 2
    machine.send("stats", b"")  # Nothing at all, in a buffer of no bytes.
    machine.serve("stats")
    assert machine.device.statistics("stats").latest == {}


def test_7_no_more_is_read_than_the_cap() -> None:
    machine = BalloonMachine()
    machine.lend("stats", segments([DATA_ADDR], [STATS_BYTES_MAX + 100]), NO_SEGMENTS)
    machine.serve("stats")
    seen = machine.device.statistics("stats")
    assert seen.ignored_bytes == 100 + STATS_BYTES_MAX % STATS_ENTRY.itemsize


def test_a_held_buffer_is_given_back_when_the_queue_is_detached() -> None:
    machine = BalloonMachine()
    driver = machine.stats()
    driver.add({"free_bytes": 1})
    driver.publish()
    machine.serve("stats")
    queue = machine.device.queues["stats"]
    assert machine.device.detach_queue("stats")
    assert driver.asked()
    assert queue.next_avail_idx == 1
    machine.device.attach_queue("stats", queue)
    driver.add({"free_bytes": 2})
    driver.publish()
    machine.serve("stats")
    assert machine.device.statistics("stats").latest == {"free_bytes": 2}


def test_a_reset_forgets_the_buffer() -> None:
    machine = BalloonMachine()
    machine.send("stats", entries((4, 1)))
    machine.serve("stats")
    machine.device.reset()
    assert not machine.device.ask_statistics()
    machine.device.validate()


def test_a_driver_sends_tags_that_exist() -> None:
    driver = BalloonMachine().stats()
    with pytest.raises(ValueError, match=r"\['free'\] have no tag; 1 to 16 of swap_in_bytes"):
        driver.add({"free": 1})
    with pytest.raises(ValueError, match="0 figures"):
        driver.add({})
    driver.add(dict.fromkeys(STATS_TAGS.values(), (1 << 64) - 1))
