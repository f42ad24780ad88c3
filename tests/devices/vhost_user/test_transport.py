"""A front-end against a back-end over a real socket."""

from devices.vhost_user.transport import Attached, Detached, QueueStarted
from tests.devices.vhost_user.hosts import Host, host
from tests.devices.vhost_user.machines import REPORTING_INDEX, Guest

__all__ = ["host"]


async def test_a_guest_attaches_reports_and_leaves(host: Host) -> None:
    guest = Guest(host.connect())
    await guest.attach()
    guest.memory.ram[100 * 4096] = 7
    await guest.report(100, 200)
    assert guest.memory.ram[100 * 4096] == 0
    assert len(host.device.discarded) == 2
    guest.close()
    await host.wait_for(Detached)
    assert isinstance(host.events[0], Attached)
    assert QueueStarted(REPORTING_INDEX) in host.events
    left = host.events[-1]
    assert isinstance(left, Detached) and left.reason is None
