import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.virtio.errors import DriverError
from devices.virtio.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from tests.devices.rings import EVENT_IDX, INDIRECT, QUEUE_ADDR, RAM_ADDR, RAM_BYTES, Rings, buffers

NEXT, WRITE, TABLE = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT
N = 8


def put_table(rings: Rings, *descriptors: tuple[int, int, int, int]) -> int:
    """Write an indirect table and return its guest-physical address."""
    for i, descriptor in enumerate(descriptors):
        rings.views.tables[i] = descriptor
    return rings.views.tables_addr


def assert_broken(rings: Rings, message: str) -> None:
    with pytest.raises(DriverError, match=message):
        rings.device.pop()
    for call in (rings.device.pop, rings.device.publish, rings.device.enable_notifications):
        with pytest.raises(DriverError, match="the queue is broken"):
            call()
    assert rings.device.statistics().protocol_errors == 1


def test_an_empty_ring_has_nothing() -> None:
    rings = Rings(N)
    assert rings.device.pop() is None
    assert not rings.device.publish()


@pytest.mark.parametrize("features", [0, INDIRECT])
def test_a_chain_arrives_as_it_was_sent(features: int) -> None:
    rings = Rings(N, features=features)
    rings.driver.add(buffers(2), buffers(3, addr=RAM_ADDR + RAM_BYTES), "token")
    rings.driver.publish()
    chain = rings.device.pop()
    assert chain is not None
    assert chain.readable.tolist() == buffers(2).tolist()
    assert chain.writable.tolist() == buffers(3, addr=RAM_ADDR + RAM_BYTES).tolist()
    assert rings.device.next_avail_idx == 1


def test_2_7_5_3_2_write_is_ignored_beside_indirect() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (7, 8, 0, 0))
    rings.offer((table, 16, TABLE | WRITE, 0))
    chain = rings.device.pop()
    assert chain is not None
    assert (chain.readable.tolist(), len(chain.writable)) == ([(7, 8)], 0)


def test_2_7_5_3_2_direct_descriptors_may_precede_an_indirect_table() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (5, 6, NEXT, 2), (0, 0, 0, 0), (7, 8, WRITE, 0))
    rings.offer((1, 2, NEXT, 1), (3, 4, NEXT, 2), (table, 48, TABLE, 0))
    chain = rings.device.pop()
    assert chain is not None
    assert chain.readable.tolist() == [(1, 2), (3, 4), (5, 6)]
    assert chain.writable.tolist() == [(7, 8)]


def test_an_indirect_table_may_lie_at_any_address() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (0, 0, 0, 0), (0, 0, 0, 0)) + 5
    offset = table - QUEUE_ADDR
    rings.views.tables[4] = (7, 8, WRITE, 0)
    rings.memory[offset : offset + 16] = rings.views.tables[4:5].view(np.uint8)
    rings.offer((table, 16, TABLE, 0))
    chain = rings.device.pop()
    assert chain is not None
    assert chain.writable.tolist() == [(7, 8)]


def test_1_a_jump_of_the_available_index() -> None:
    rings = Rings(N)
    rings.views.avail[1]["word"] = N + 1
    assert_broken(rings, "more chains are available")


def test_1_an_available_index_that_goes_backwards() -> None:
    rings = Rings(N)
    rings.offer((1, 2, WRITE, 0))
    assert rings.device.pop() is not None
    rings.views.avail[1]["word"] = 0
    assert_broken(rings, "more chains are available")


@pytest.mark.parametrize("head", [N, 0xFFFF])
def test_1_a_head_outside_the_descriptors(head: int) -> None:
    rings = Rings(N)
    rings.offer(head=head)
    assert_broken(rings, "the head of a chain is outside")


@pytest.mark.parametrize("following", [N, 0xFFFF])
def test_1_a_next_outside_the_descriptors(following: int) -> None:
    rings = Rings(N)
    rings.offer((1, 2, NEXT, following))
    assert_broken(rings, "next is outside its table")


def test_1_a_next_outside_the_indirect_table() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (1, 2, NEXT, 2), (3, 4, WRITE, 0), (5, 6, WRITE, 0))
    rings.offer((table, 32, TABLE, 0))
    assert_broken(rings, "next is outside its table")


def test_2_7_5_2_a_loop_ends() -> None:
    rings = Rings(N)
    rings.offer((1, 2, NEXT, 1), (3, 4, NEXT, 0))
    assert_broken(rings, "longer than its table")


def test_2_7_5_2_a_loop_in_an_indirect_table_ends() -> None:
    rings = Rings(N, features=INDIRECT)
    rings.offer((put_table(rings, (1, 2, NEXT, 0)), 16, TABLE, 0))
    assert_broken(rings, "longer than its table")


def test_2_7_5_2_a_chain_has_at_most_2_to_the_32_bytes() -> None:
    rings = Rings(N)
    rings.offer((0, 0xFFFFFFFF, NEXT, 1), (0, 1, WRITE, 0))
    assert rings.device.pop() is not None
    rings.offer((0, 0xFFFFFFFF, NEXT, 1), (0, 2, WRITE, 0), head=0)
    rings.device.push_used(0, 0)
    assert_broken(rings, "longer than 2\\^32 bytes")


def test_2_7_4_2_readable_buffers_come_first() -> None:
    rings = Rings(N)
    rings.offer((1, 2, NEXT | WRITE, 1), (3, 4, 0, 0))
    assert_broken(rings, "a readable buffer follows a writable one")


def test_2_7_4_2_also_across_an_indirect_table() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (3, 4, 0, 0))
    rings.offer((1, 2, NEXT | WRITE, 1), (table, 16, TABLE, 0))
    assert_broken(rings, "a readable buffer follows a writable one")


@pytest.mark.parametrize("size_bytes", [0, 8, 17, 65536 * 16, 0xFFFFFFFF])
def test_2_an_indirect_table_of_a_wrong_length(size_bytes: int) -> None:
    rings = Rings(N, features=INDIRECT)
    rings.offer((put_table(rings, (1, 2, WRITE, 0)), size_bytes, TABLE, 0))
    assert_broken(rings, f"an indirect table of {size_bytes} bytes")


def test_2_7_5_3_1_indirect_tables_do_not_nest() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (QUEUE_ADDR, 16, TABLE, 0))
    rings.offer((table, 16, TABLE, 0))
    assert_broken(rings, "named by another one")


def test_2_7_5_3_1_indirect_and_next_exclude_each_other() -> None:
    rings = Rings(N, features=INDIRECT)
    table = put_table(rings, (1, 2, WRITE, 0))
    rings.offer((table, 16, TABLE | NEXT, 1), (1, 2, WRITE, 0))
    assert_broken(rings, "both the flags INDIRECT and NEXT")


def test_2_7_5_3_1_an_indirect_table_that_was_not_negotiated() -> None:
    rings = Rings(N)
    rings.offer((put_table(rings, (1, 2, WRITE, 0)), 16, TABLE, 0))
    assert_broken(rings, "not negotiated")


@pytest.mark.parametrize(
    "addr", [0, QUEUE_ADDR - 8, (1 << 64) - 8, RAM_ADDR, RAM_ADDR + RAM_BYTES - 8]
)
def test_3_an_indirect_table_outside_memory_is_never_read(addr: int) -> None:
    rings = Rings(N, features=INDIRECT)
    rings.offer((addr, 32, TABLE, 0))
    assert_broken(rings, "not inside one memory region")


def test_a_chain_that_is_available_twice() -> None:
    rings = Rings(N)
    rings.offer((1, 2, WRITE, 0))
    rings.offer()
    assert rings.device.pop() is not None
    assert_broken(rings, "made available twice")


@pytest.mark.parametrize("features", [0, INDIRECT])
def test_8_what_the_driver_writes_later_does_not_change_a_chain(features: int) -> None:
    rings = Rings(N, features=features)
    rings.lend(3)
    first = rings.device.pop()
    rings.memory[:] = 0xFF
    assert first is not None
    assert first.writable.tolist() == buffers(3).tolist()


def test_8_a_later_chain_does_not_change_an_earlier_one() -> None:
    rings = Rings(N)
    rings.lend(2)
    first = rings.device.pop()
    rings.driver.add(buffers(1), buffers(1), "second")
    rings.driver.publish()
    assert rings.device.pop() is not None
    assert first is not None
    assert first.writable.tolist() == buffers(2).tolist()


def test_9_a_ring_that_turns_to_zeroes_is_survived() -> None:
    rings = Rings(N)
    for _ in range(3):
        rings.lend(1)
        rings.give_back()
        rings.driver.pop_used()
    rings.memory[:] = 0  # The guest reported the page that its ring is in.
    assert_broken(rings, "more chains are available")
    rings.driver.initialize()
    rings.device.reset()
    rings.lend(1)
    rings.give_back()
    assert rings.driver.pop_used() == [("token", 0)]


def test_9_zeroes_that_look_like_chains_are_empty_ones() -> None:
    rings = Rings(N, start=65535)
    rings.memory[:] = 0
    chain = rings.device.pop()
    assert chain is not None
    assert (chain.head, chain.readable.tolist(), len(chain.writable)) == (0, [(0, 0)], 0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_ring_holds_the_device_ends(data: st.DataObject) -> None:
    rings = Rings(4, features=INDIRECT | EVENT_IDX, table_entries=2)
    flags = st.sampled_from([0, NEXT, WRITE, TABLE, NEXT | WRITE, NEXT | WRITE | TABLE, 0xFFF8])
    addr = st.sampled_from([0, QUEUE_ADDR, rings.views.tables_addr, (1 << 64) - 1])
    length = st.sampled_from([0, 1, 16, 32, 64, 0xFFFFFFFF])
    descriptor = st.tuples(addr, length, flags, st.integers(0, 5))
    for table in (rings.views.descriptors, rings.views.tables):
        for i in range(len(table)):
            table[i] = data.draw(descriptor)
    rings.views.avail["word"] = data.draw(st.lists(st.integers(0, 5), min_size=7, max_size=7))
    popped = 0
    try:
        while (chain := rings.device.pop()) is not None:
            popped += 1
            assert len(chain.readable) + len(chain.writable) >= 1
            rings.device.push_used(chain.head, 0)
        rings.device.publish()
    except DriverError:
        assert rings.device.broken
    assert popped <= rings.device.size
    rings.device.validate()
