import pytest

from devices.balloon.device import BalloonDevice, Request
from devices.balloon.layout import F_PAGE_POISON, F_PAGE_REPORTING
from devices.virtio.chain import NO_SEGMENTS, segments
from devices.virtio.errors import DriverError
from tests.devices.rings import INDIRECT, RAM_ADDR, RAM_BYTES, Rings, buffers

PAGE = 4096
TOP = 1 << 64
SECOND_ADDR = RAM_ADDR + RAM_BYTES
FIRST, SECOND = 0, 1  # Regions, in order of address; the ring's is the third.


def device_of(rings: Rings, features: int = 0) -> BalloonDevice:
    return BalloonDevice(
        {"reporting": rings.device},
        rings.address_space,
        features=features | 1 << F_PAGE_REPORTING,
    )


def taken(device: BalloonDevice) -> Request:
    request = device.take("reporting")
    assert request is not None
    return request


@pytest.mark.parametrize("features", [0, INDIRECT])
def test_valid_ranges_are_handed_out_by_region(features: int) -> None:
    rings = Rings(8, features=features)
    device = device_of(rings)
    addr = [RAM_ADDR + 16 * PAGE, SECOND_ADDR, SECOND_ADDR - PAGE]
    rings.driver.add(NO_SEGMENTS, segments(addr, [PAGE, 2 * PAGE, PAGE]), "token")
    rings.driver.publish()
    request = taken(device)
    assert request.ranges.tolist() == [
        (FIRST, 16 * PAGE, PAGE),
        (SECOND, 0, 2 * PAGE),
        (FIRST, RAM_BYTES - PAGE, PAGE),
    ]
    seen = device.statistics("reporting")
    assert (seen.requests, seen.elements, seen.accepted, seen.accepted_bytes) == (1, 3, 3, 4 * PAGE)
    device.validate()


def test_nothing_is_used_before_it_is_completed() -> None:
    rings = Rings(8)
    device = device_of(rings)
    rings.lend(2)
    request = taken(device)
    assert rings.driver.pop_used() == []
    assert device.complete(request)
    assert rings.driver.pop_used() == [("token", 0)]
    assert device.take("reporting") is None
    device.validate()


@pytest.mark.parametrize(
    ("addr", "length", "cause"),
    [
        (RAM_ADDR, 0, "empty"),
        (0, 0, "empty"),
        (RAM_ADDR + 1, PAGE, "unaligned"),
        (RAM_ADDR, PAGE - 1, "unaligned"),
        (TOP - 1, PAGE, "unaligned"),
        (RAM_ADDR - PAGE, PAGE, "outside"),
        (SECOND_ADDR - PAGE, 2 * PAGE, "outside"),  # Touching regions are two.
        (SECOND_ADDR + RAM_BYTES, PAGE, "outside"),
        (TOP - PAGE, 2 * PAGE, "outside"),
        (TOP - PAGE, 0xFFFF0000, "outside"),
    ],
)
def test_3_and_5_a_bad_element_is_dropped_and_its_request_completed(
    addr: int, length: int, cause: str
) -> None:
    rings = Rings(8)
    device = device_of(rings)
    ranges = segments([RAM_ADDR, addr, RAM_ADDR + PAGE], [PAGE, length, PAGE])
    rings.driver.add(NO_SEGMENTS, ranges, "token")
    rings.driver.publish()
    request = taken(device)
    assert request.ranges.tolist() == [(FIRST, 0, PAGE), (FIRST, PAGE, PAGE)]
    assert getattr(device.statistics("reporting"), cause) == 1
    device.complete(request)
    assert rings.driver.pop_used() == [("token", 0)]
    device.validate()


def test_5_readable_elements_are_dropped() -> None:
    rings = Rings(8)
    device = device_of(rings)
    rings.driver.add(buffers(2), buffers(1), "token")
    rings.driver.publish()
    assert taken(device).ranges.tolist() == [(FIRST, 0, PAGE)]
    assert device.statistics("reporting").not_writable == 2
    device.validate()


def test_5_a_poison_value_forbids_to_discard() -> None:
    rings = Rings(8)
    device = device_of(rings, features=1 << F_PAGE_POISON)
    rings.lend(2)
    assert len(taken(device).ranges) == 2  # It is 0: discarded memory reads as the guest expects.
    device.config.write(12, b"\xaa\xaa\xaa\xaa")
    rings.lend(2)
    assert len(taken(device).ranges) == 0
    assert device.statistics("reporting").poisoned == 2
    device.validate()


def test_5_a_poison_value_that_was_not_negotiated_means_nothing() -> None:
    rings = Rings(8)
    device = device_of(rings)
    device.config.write(12, b"\xaa\xaa\xaa\xaa")
    rings.lend(2)
    assert len(taken(device).ranges) == 2


def test_9_a_guest_may_report_its_own_ring() -> None:
    rings = Rings(256)  # Its descriptors fill a page.
    device = device_of(rings)
    rings.driver.add(NO_SEGMENTS, segments([rings.address_space.regions[2].guest_addr], [PAGE]), 0)
    rings.driver.publish()
    request = taken(device)
    assert request.ranges.tolist() == [(2, 0, PAGE)]
    rings.memory[:PAGE] = 0  # As the discard does.
    device.complete(request)
    assert rings.driver.pop_used() == [(0, 0)]


def test_a_broken_ring_breaks_the_device_until_it_is_reset() -> None:
    rings = Rings(8)
    device = device_of(rings)
    rings.offer(head=99)
    with pytest.raises(DriverError) as error:
        device.take("reporting")
    device.mark_broken(str(error.value))
    assert device.take("reporting") is None
    rings.driver.initialize()
    device.reset()
    rings.lend()
    assert device.complete(taken(device))
    device.validate()


def test_a_queue_without_a_handler_is_rejected() -> None:
    rings = Rings(8)
    known = r"no handler for queue 'stats' with these features; there are: \['deflate', 'inflate'\]"
    with pytest.raises(ValueError, match=known):
        BalloonDevice({"stats": rings.device}, rings.address_space, features=0)
