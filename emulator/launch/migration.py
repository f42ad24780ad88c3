"""The host's migration of a machine's guest, for either launcher."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from devices.balloon.device import BalloonDevice
from emulator.host.migration_task import MigrationTask
from emulator.machine import Machine


def migration_task(
    machine: Machine, device: BalloonDevice, discard: Callable[[npt.NDArray[Any]], int]
) -> MigrationTask | None:
    """What migrates the guest when its workload asks; None if that never does."""
    migration = machine.migration()
    if migration is None:
        return None
    return MigrationTask(
        migration,
        machine.scenario.guest.vcpus,
        device.free_pages,
        discard,
    )
