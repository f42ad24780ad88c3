"""What the processes of one guest wake each other by: an eventfd for each name."""

from typing import Self

from devices.virtio.notifier import EventfdNotifier
from emulator.launch.child import Passed
from emulator.machine import Machine


class Eventfds(dict[str, EventfdNotifier]):
    """`machine.Wires` between processes; ours until `close`."""

    @classmethod
    def of(cls, machine: Machine) -> Self:
        """All that a machine needs, new."""
        return cls({name: EventfdNotifier() for name in machine.wire_names()})

    def passed(self) -> dict[str, Passed]:
        """For a child: it gets duplicates."""
        return {name: Passed(notifier.fd) for name, notifier in self.items()}

    def close(self) -> None:
        """Close all."""
        for notifier in self.values():
            notifier.close()
