import pytest

from devices.balloon.driver import BalloonDriver
from devices.virtio.errors import DeviceError
from tests.devices.rings import INDIRECT, Rings, buffers


def test_a_report_is_one_request_of_writable_buffers() -> None:
    rings = Rings(32, features=INDIRECT, table_entries=32)
    driver = BalloonDriver({"reporting": rings.driver})
    ranges = buffers(32, length=2 << 20)
    report = driver.add_report(ranges)
    assert report is not None
    assert driver.publish_reports()
    chain = rings.device.pop()
    assert chain is not None
    assert len(chain.readable) == 0
    assert chain.writable.tolist() == ranges.tolist()
    assert report.acknowledged is None
    rings.device.push_used(chain.head, 0)
    rings.device.publish()
    driver.take_acknowledged()
    assert report.acknowledged is True
    driver.validate()
    seen = driver.statistics()
    assert (seen.reports, seen.acknowledged, seen.reported_bytes) == (1, 1, 64 << 20)


def test_a_full_ring_takes_no_report() -> None:
    rings = Rings(4)
    driver = BalloonDriver({"reporting": rings.driver})
    assert driver.add_report(buffers(3)) is not None
    assert driver.add_report(buffers(2)) is None
    assert driver.statistics().reports == 1
    driver.validate()


def test_a_report_larger_than_the_queue_is_an_error() -> None:
    driver = BalloonDriver({"reporting": Rings(4).driver})
    assert driver.ranges_max == 4
    with pytest.raises(ValueError, match="1 to 4"):
        driver.add_report(buffers(5))
    with pytest.raises(ValueError, match="1 to 4"):
        driver.add_report(buffers(0))


def test_without_a_reporting_queue_there_is_no_driver() -> None:
    with pytest.raises(ValueError, match="the device must offer PAGE_REPORTING"):
        BalloonDriver({})


def test_a_reset_ends_reports_unacknowledged_and_a_restart_takes_new_ones() -> None:
    rings = Rings(4)
    driver = BalloonDriver({"reporting": rings.driver})
    report = driver.add_report(buffers(1))
    driver.publish_reports()
    driver.reset()
    assert report is not None
    assert report.acknowledged is False
    driver.validate()
    rings.device.reset()
    driver.restart()
    again = driver.add_report(buffers(1))
    driver.publish_reports()
    rings.give_back()
    driver.take_acknowledged()
    assert again is not None
    assert again.acknowledged is True
    assert report.acknowledged is False
    driver.validate()


def test_a_device_that_lies_acknowledges_nothing() -> None:
    rings = Rings(4)
    driver = BalloonDriver({"reporting": rings.driver})
    report = driver.add_report(buffers(2))
    driver.publish_reports()
    rings.views.used_ring[0] = (1, 0)
    rings.views.used[1]["word"] = 1
    with pytest.raises(DeviceError):
        driver.take_acknowledged()
    assert report is not None
    assert report.acknowledged is None
