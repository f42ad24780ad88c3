"""The in-flight area: a back-end dies at any point, and its successor loses and repeats nothing."""

import os
from collections.abc import Iterator

import pytest
import trio

from devices.vhost_user.errors import Refused
from devices.vhost_user.inflight import InflightArea, create_area
from devices.vhost_user.layout import ProtocolFeature, Request, inflight_queue_bytes
from devices.vhost_user.messages import Inflight, VringState
from devices.vhost_user.transport import Detached
from tests.devices.vhost_user.hosts import Host, host
from tests.devices.vhost_user.machines import (
    QUEUE_SIZE,
    REPORTING_INDEX,
    Guest,
    GuestMemory,
    no_leak,
)
from tests.devices.vhost_user.talk import Talk

__all__ = ["host"]
INDEX = REPORTING_INDEX
ALL = ProtocolFeature(sum(ProtocolFeature))
WANTED = Inflight(queues=3, queue_size=QUEUE_SIZE)


class Kept:
    """A guest's memory and its in-flight area, which outlive their back-ends."""

    def __init__(self) -> None:
        self.memory = GuestMemory()
        self.area, self.fd = create_area(WANTED, 5)
        self.talks: list[Talk] = []

    def back_end(self) -> Talk:
        talk = Talk()
        talk.negotiate(protocol=ALL)
        talk.set_memory(self.memory)
        assert not talk.refused(Request.SET_INFLIGHT_FD, self.area, self.fd)
        talk.start(self.memory)
        self.talks.append(talk)
        return talk

    def close(self) -> None:
        for talk in self.talks:
            talk.close()
        self.memory.close()
        os.close(self.fd)


@pytest.fixture
def kept() -> Iterator[Kept]:
    with no_leak():
        kept = Kept()
        yield kept
        kept.close()


def pop(talk: Talk) -> int | None:
    chain = talk.queues[INDEX].pop()
    return None if chain is None else (int(chain.writable["addr"][0]) >> 12) - 0x100


def heads(talk: Talk, count: int) -> list[int]:
    found = []
    for _ in range(count):
        chain = talk.queues[INDEX].pop()
        assert chain is not None
        found.append(chain.head)
    return found


def test_the_area_that_a_back_end_makes() -> None:
    with no_leak():
        talk = Talk()
        talk.negotiate(protocol=ALL)
        (reply,) = talk.send(Request.GET_INFLIGHT_FD, WANTED)
        area, fd = reply.payload, reply.take_descriptor()
        assert isinstance(area, Inflight)
        assert area.mmap_size == 3 * inflight_queue_bytes(QUEUE_SIZE) == os.fstat(fd).st_size
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)  # Sealed: nobody can shrink it.
        assert not talk.refused(Request.SET_INFLIGHT_FD, area, fd)
        os.close(fd)
        assert talk.backend.area is not None and not talk.backend.area.lost
        talk.close()


def test_what_was_taken_comes_again_in_order_before_the_rest(kept: Kept) -> None:
    for page in range(50, 56):
        kept.memory.lend(page)
    first = kept.back_end()
    assert [pop(first) for _ in range(4)] == [50, 51, 52, 53]
    # It died.
    second = kept.back_end()
    assert second.queues[INDEX].next_avail_idx == 4
    assert [pop(second) for _ in range(7)] == [50, 51, 52, 53, 54, 55, None]
    second.queues[INDEX].validate()


def test_what_was_given_back_does_not_come_again(kept: Kept) -> None:
    for page in range(50, 56):
        kept.memory.lend(page)
    first = kept.back_end()
    taken = heads(first, 4)
    for head in (taken[2], taken[0]):  # Out of order, in one batch.
        first.queues[INDEX].push_used(head, 0)
    first.queues[INDEX].publish()
    second = kept.back_end()
    assert [pop(second) for _ in range(5)] == [51, 53, 54, 55, None]
    assert {token for token, _ in kept.memory.queue.pop_used()} == {(50,), (52,)}


def test_a_death_between_publishing_and_clearing(kept: Kept) -> None:
    for page in range(50, 54):
        kept.memory.lend(page)
    first = kept.back_end()
    queue = first.queues[INDEX]
    taken = heads(first, 3)
    queue._inflight.begin_batch(taken[:2])  # type: ignore[union-attr]  # What publish() does,
    for head in taken[:2]:
        queue.push_used(head, 0)
    inflight, queue._inflight = queue._inflight, None
    queue.publish()  # but for its last step.
    assert inflight is not None
    second = kept.back_end()
    assert [pop(second) for _ in range(3)] == [52, 53, None]


def test_a_death_before_publishing(kept: Kept) -> None:
    for page in (50, 51):
        kept.memory.lend(page)
    first = kept.back_end()
    for head in heads(first, 2):
        first.queues[INDEX].push_used(head, 0)
    second = kept.back_end()
    assert [pop(second) for _ in range(3)] == [50, 51, None]


def test_the_base_of_a_stopped_vring_counts_what_is_in_flight(kept: Kept) -> None:
    for page in (50, 51):
        kept.memory.lend(page)
    talk = kept.back_end()
    assert pop(talk) == 50
    assert talk.ask(Request.GET_VRING_BASE, VringState(INDEX, 0)) == VringState(INDEX, 1)
    talk.start(kept.memory, base=1)
    assert [pop(talk) for _ in range(3)] == [50, 51, None]


def area_queue(**fields: int) -> None:
    described, fd = create_area(Inflight(queues=1, queue_size=8), 1)
    area = InflightArea(described, fd, 1)
    queue = area.queue(0, 8)
    assert queue is not None and area.queue(1, 8) is None
    assert queue.recover(7) == []
    for name, value in fields.items():
        queue._header[name] = value
    queue.recover(7)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"desc_num": 16},
        {"used_idx": 8},  # The ring would be 65535 chains ahead.
        {"used_idx": 5, "last_batch_head": 8},
    ],
)
def test_an_area_that_was_tampered_with(fields: dict[str, int]) -> None:
    with no_leak(), pytest.raises(Refused):
        area_queue(**fields)


def test_a_ring_larger_than_the_area() -> None:
    described, fd = create_area(Inflight(queues=1, queue_size=8), 1)
    with pytest.raises(Refused, match="16 entries"):
        InflightArea(described, fd, 1).queue(0, 16)


def test_counters_at_their_end() -> None:
    described, fd = create_area(Inflight(queues=1, queue_size=8), 1)
    queue = InflightArea(described, fd, 1).queue(0, 8)
    assert queue is not None
    queue.recover(0)
    queue.take(3)
    queue._rows[3]["counter"] = (1 << 64) - 1
    assert queue.recover(0) == [3]
    queue.take(4)  # Does not overflow.


async def test_a_front_end_reconnects_with_its_area(host: Host) -> None:
    """The whole way: a guest's reports survive the death of its back-end."""
    host.device.hold = trio.Event()  # The first one is stuck in its discard, and will die so.
    memory = GuestMemory()
    guest = Guest(host.connect(), memory)
    hold, frontend = guest.connection.hold, guest.frontend
    await hold(frontend.negotiate(features=1 << 5 | 1 << 32))
    area, fd = await hold(frontend.get_inflight(queues=5, queue_size=QUEUE_SIZE))
    await hold(frontend.set_inflight(area, fd))
    await hold(frontend.set_memory([(memory.range, memory.fd)]))
    await guest.start()
    for page in (60, 61, 62):
        memory.lend(page)
    guest.kick.notify()
    await trio.sleep(0.05)
    assert host.server.backend is not None
    queue = host.server.backend.vrings[INDEX].queue
    assert queue is not None and queue.statistics().in_flight == 1
    queue.push_used = lambda head, length: None  # type: ignore[method-assign]  # It dies first.
    queue.publish = lambda: False  # type: ignore[method-assign]
    guest.leave()
    host.device.hold.set()
    await host.wait_for(Detached)
    host.device.hold = None
    again = Guest(host.connect(), memory)
    await again.connection.hold(again.frontend.negotiate(features=1 << 5 | 1 << 32))
    await again.connection.hold(again.frontend.set_inflight(area, fd))
    await again.connection.hold(again.frontend.set_memory([(memory.range, memory.fd)]))
    await again.start()
    found: list[object] = []
    with trio.fail_after(10):
        while len(found) < 3:
            found += [token for token, _ in memory.queue.pop_used()]
            await trio.sleep(0.001)
    assert found == [(60,), (61,), (62,)]
    guest.kick.close()
    guest.call.close()
    again.close()
    os.close(fd)
    await host.wait_for(Detached, 2)
