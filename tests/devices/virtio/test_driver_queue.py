import pytest

from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.errors import DeviceError
from devices.virtio.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from tests.devices.rings import EVENT_IDX, INDIRECT, QUEUE_ADDR, RAM_ADDR, Rings, buffers


def test_2_7_13_1_a_chain_has_its_readable_buffers_first() -> None:
    rings = Rings(4)
    assert rings.driver.add(segments([7], [8]), segments([9, 11], [10, 12]), "token")
    assert rings.views.descriptors.tolist()[:3] == [
        (7, 8, DESC_F_NEXT, 1),
        (9, 10, DESC_F_NEXT | DESC_F_WRITE, 2),
        (11, 12, DESC_F_WRITE, 0),
    ]


def test_2_7_5_3_several_buffers_go_into_an_indirect_table() -> None:
    rings = Rings(4, features=INDIRECT)
    assert rings.lend(3, "a")
    assert rings.lend(1, "b")  # A single buffer needs none.
    table_addr = rings.views.tables_addr
    assert rings.views.descriptors[0].item() == (table_addr, 48, DESC_F_INDIRECT, 0)
    assert rings.views.descriptors[1].item() == (RAM_ADDR, 4096, DESC_F_WRITE, 0)
    offset = table_addr - QUEUE_ADDR
    assert rings.memory[offset : offset + 48].tobytes() == rings.views.tables[:3].tobytes()
    assert [d["next"] for d in rings.views.tables[:3]] == [1, 2, 0]


def test_2_7_5_3_1_no_indirect_table_unless_it_was_negotiated() -> None:
    rings = Rings(4)
    rings.lend(3)
    assert not (rings.views.descriptors["flags"] & DESC_F_INDIRECT).any()


def test_2_7_5_3_1_no_chain_is_longer_than_the_queue() -> None:
    rings = Rings(4, features=INDIRECT)
    with pytest.raises(ValueError, match="a chain of 5 buffers; 1 to 4"):
        rings.lend(5)
    with pytest.raises(ValueError, match="a chain of 0 buffers"):
        rings.lend(0)


def test_2_7_5_2_no_chain_has_more_than_2_to_the_32_bytes() -> None:
    rings = Rings(4)
    half = segments([0], [1 << 31])
    with pytest.raises(ValueError, match="more than 4294967296 bytes"):
        rings.driver.add(half, segments([0, 0], [1 << 31, 1]), "token")
    rings.driver.validate()
    assert rings.driver.add(half, half, "token")


def test_a_chain_longer_than_a_table_takes_direct_descriptors() -> None:
    rings = Rings(8, features=INDIRECT, table_entries=2)
    assert rings.lend(8)
    assert not rings.lend(1)
    chain = rings.device.pop()
    assert chain is not None
    assert chain.writable.tolist() == buffers(8).tolist()


def test_a_full_ring_takes_nothing_until_something_was_used() -> None:
    rings = Rings(4)
    assert rings.lend(3, "a")
    assert not rings.lend(2, "b")
    assert rings.driver.statistics().ring_full == 1
    rings.driver.validate()
    rings.give_back()
    assert rings.driver.pop_used() == [("a", 0)]
    assert rings.lend(4, "c")
    rings.driver.validate()


def test_2_7_13_nothing_is_visible_before_it_is_published() -> None:
    rings = Rings(4)
    rings.driver.add(NO_SEGMENTS, buffers(1), 1)
    rings.driver.add(NO_SEGMENTS, buffers(1), 2)
    assert rings.views.avail[1]["word"] == 0
    assert rings.device.pop() is None
    assert rings.driver.publish()
    assert rings.views.avail[1]["word"] == 2
    assert rings.device.pop() is not None
    assert not rings.driver.publish()  # Nothing new: nobody needs to be woken.


def test_2_7_7_1_with_event_idx_the_driver_leaves_its_flags_0() -> None:
    rings = Rings(4, features=EVENT_IDX)
    rings.driver.disable_notifications()
    assert rings.views.avail[0]["word"] == 0
    rings.driver.enable_notifications()
    assert rings.views.avail[0]["word"] == 0


def test_2_7_7_1_without_event_idx_the_flags_say_it() -> None:
    rings = Rings(4)
    rings.driver.disable_notifications()
    assert rings.views.avail[0]["word"] == 1
    rings.driver.enable_notifications()
    assert rings.views.avail[0]["word"] == 0


def test_2_7_8_2_the_used_length_reaches_the_driver() -> None:
    rings = Rings(4)
    rings.lend(2)
    rings.give_back(8192)
    assert rings.driver.pop_used() == [("token", 8192)]


def used_by(rings: Rings, head: int, length: int, idx: int = 1) -> None:
    """As a hostile device: write a used entry raw."""
    rings.views.used_ring[0] = (head, length)
    rings.views.used[1]["word"] = idx


@pytest.mark.parametrize(
    ("head", "length", "idx", "message"),
    [
        (1, 0, 1, "a chain that it was not lent"),  # Inside the chain, but not its head.
        (3, 0, 1, "a chain that it was not lent"),
        (4, 0, 1, "a chain that it was not lent"),
        (0xFFFFFFFF, 0, 1, "a chain that it was not lent"),
        (0, 8193, 1, "more than a chain can hold"),
        (0, 0xFFFFFFFF, 1, "more than a chain can hold"),
        (0, 0, 2, "more chains than it was lent"),
        (0, 0, 0xFFFF, "more chains than it was lent"),
    ],
)
def test_a_device_that_returns_what_it_was_not_lent(
    head: int, length: int, idx: int, message: str
) -> None:
    rings = Rings(4)
    rings.lend(2)
    used_by(rings, head, length, idx)
    with pytest.raises(DeviceError, match=message):
        rings.driver.pop_used()
    with pytest.raises(DeviceError, match="the queue is broken"):
        rings.lend(1)
    rings.driver.initialize()
    assert rings.lend(1)
    rings.driver.validate()


def test_a_chain_cannot_be_returned_twice() -> None:
    rings = Rings(4)
    rings.lend(1, "a")
    rings.lend(1, "b")
    used_by(rings, 0, 0)
    assert rings.driver.pop_used() == [("a", 0)]
    rings.views.used_ring[1] = (0, 0)
    rings.views.used[1]["word"] = 2
    with pytest.raises(DeviceError, match="was not lent"):
        rings.driver.pop_used()


def test_a_device_that_overwrites_descriptors_does_not_mislead_the_driver() -> None:
    rings = Rings(4)
    rings.lend(3)
    used_by(rings, 0, 0)
    rings.views.descriptors.view("u1")[:] = 0xFF
    assert rings.driver.pop_used() == [("token", 0)]
    rings.driver.validate()
    assert rings.lend(4)


def test_initialize_forgets_what_was_lent() -> None:
    rings = Rings(4)
    rings.lend(2)
    rings.driver.initialize(start=65535)
    assert rings.driver.statistics().in_flight == 0
    rings.driver.validate()
    rings.device.reset(start=65535)
    rings.lend(4, "new")
    rings.give_back()
    assert rings.driver.pop_used() == [("new", 0)]
    assert rings.views.used[1]["word"] == 0
