"""What the two halves promise each other about notifications, and across the wrap of the index."""

import pytest

from devices.virtio.chain import NO_SEGMENTS
from tests.devices.rings import EVENT_IDX, INDIRECT, Rings, buffers

MODES = [0, EVENT_IDX]


@pytest.mark.parametrize("features", [0, INDIRECT, EVENT_IDX, INDIRECT | EVENT_IDX])
@pytest.mark.parametrize("start", [0, 65533])
def test_2_7_13_3_indices_wrap_at_65536(features: int, start: int) -> None:
    rings = Rings(4, features=features, start=start)
    for i in range(10):
        assert rings.lend(1 + i % 3, i)
        rings.give_back()
        assert rings.driver.pop_used() == [(i, 0)]
    assert rings.views.avail[1]["word"] == rings.views.used[1]["word"] == (start + 10) % 65536
    rings.driver.validate()
    rings.device.validate()


@pytest.mark.parametrize("features", MODES)
def test_2_7_10_1_the_first_chain_is_notified(features: int) -> None:
    rings = Rings(4, features=features, start=65535)
    rings.driver.add(NO_SEGMENTS, buffers(1), "token")
    assert rings.driver.publish()


@pytest.mark.parametrize("features", MODES)
def test_2_7_10_1_a_device_that_does_not_want_to_be_notified_is_not(features: int) -> None:
    rings = Rings(4, features=features)
    rings.device.disable_notifications()
    for _ in range(3):
        rings.driver.add(NO_SEGMENTS, buffers(1), "token")
        assert not rings.driver.publish()


@pytest.mark.parametrize("features", MODES)
def test_2_7_10_no_wake_up_of_the_device_is_lost(features: int) -> None:
    rings = Rings(4, features=features)
    rings.device.disable_notifications()
    rings.lend()
    assert rings.device.enable_notifications()  # It came in between: look again.
    assert rings.device.pop() is not None
    assert not rings.device.enable_notifications()
    rings.driver.add(NO_SEGMENTS, buffers(1), "token")
    assert rings.driver.publish()


def test_2_7_10_1_with_event_idx_only_the_asked_for_chain_is_notified() -> None:
    rings = Rings(4, features=EVENT_IDX)
    rings.driver.add(NO_SEGMENTS, buffers(1), 0)
    assert rings.driver.publish()
    rings.driver.add(NO_SEGMENTS, buffers(1), 1)
    assert not rings.driver.publish()  # The device has been woken and has not asked again.


def test_2_7_10_1_with_event_idx_a_batch_that_passes_the_event_is_notified() -> None:
    rings = Rings(4, features=EVENT_IDX, start=65534)
    for i in range(4):
        rings.driver.add(NO_SEGMENTS, buffers(1), i)
    assert rings.driver.publish()


def test_2_7_10_1_with_event_idx_the_flags_are_ignored() -> None:
    rings = Rings(4, features=EVENT_IDX)
    rings.views.used[0]["word"] = 1
    rings.driver.add(NO_SEGMENTS, buffers(1), "token")
    assert rings.driver.publish()


def test_2_7_10_1_without_event_idx_the_event_is_ignored() -> None:
    rings = Rings(4)
    rings.views.used[-1]["word"] = 1234
    rings.driver.add(NO_SEGMENTS, buffers(1), "token")
    assert rings.driver.publish()


def test_2_7_10_2_with_event_idx_the_device_leaves_its_flags_0() -> None:
    rings = Rings(4, features=EVENT_IDX)
    rings.device.disable_notifications()
    assert rings.views.used[0]["word"] == 0


@pytest.mark.parametrize("features", MODES)
def test_2_7_7_2_a_driver_that_wants_to_be_notified_is(features: int) -> None:
    rings = Rings(4, features=features)
    rings.lend()
    take(rings)
    assert rings.device.publish()


@pytest.mark.parametrize("features", MODES)
def test_2_7_7_2_a_driver_that_does_not_want_to_be_notified_is_not(features: int) -> None:
    rings = Rings(4, features=features)
    rings.driver.disable_notifications()
    rings.lend()
    take(rings)
    assert not rings.device.publish()


@pytest.mark.parametrize("features", MODES)
def test_2_7_14_no_wake_up_of_the_driver_is_lost(features: int) -> None:
    rings = Rings(4, features=features)
    rings.driver.disable_notifications()
    rings.lend()
    rings.give_back()
    assert rings.driver.enable_notifications()
    assert len(rings.driver.pop_used()) == 1
    assert not rings.driver.enable_notifications()
    rings.lend()
    take(rings)
    assert rings.device.publish()


def test_2_7_7_2_with_event_idx_the_flags_are_ignored() -> None:
    rings = Rings(4, features=EVENT_IDX)
    rings.views.avail[0]["word"] = 1
    rings.lend()
    take(rings)
    assert rings.device.publish()


def test_chains_may_be_used_out_of_order() -> None:
    rings = Rings(8)
    for token in "abc":
        rings.lend(2, token)
    heads = []
    while (chain := rings.device.pop()) is not None:
        heads.append(chain.head)
    for head in reversed(heads):
        rings.device.push_used(head, 0)
    rings.device.publish()
    assert [token for token, _ in rings.driver.pop_used()] == ["c", "b", "a"]
    rings.driver.validate()
    assert rings.lend(8)


def take(rings: Rings) -> None:
    chain = rings.device.pop()
    assert chain is not None
    rings.device.push_used(chain.head, 0)
