"""Everything that the processes of one run share, and how each of them gets its part.

The supervisor creates a `Machine`; another process attaches to the parts that it may see, by the
names and descriptors in a `Handle`.  In virtual time there is one process, and it uses the
supervisor's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from devices.balloon.config_space import ConfigSpace
from devices.balloon.device import BalloonDevice
from devices.balloon.driver import BalloonDriver
from devices.balloon.driver_task import FreePageReporter
from devices.balloon.free_page_driver import FreePageDriver
from devices.balloon.layout import F_FREE_PAGE_HINT, F_PAGE_REPORTING, FREE_PAGE, REPORTING
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.memory.ram import GuestRam
from devices.memory.region import Layout, Region
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from devices.virtio.notifier import Notifier
from devices.virtio.queue_layout import QueueViews
from emulator.config.scenario import Scenario
from emulator.errors import MachineLacks
from emulator.guest.hinting.cycle import Mechanism
from emulator.guest.hinting.free_page_task import FreePageHinter
from emulator.guest.hinting.registry import load_mechanism
from emulator.guest.layout import PHASES_MAX
from emulator.guest.mm.views import GuestMemory
from emulator.host.migration import Migration
from emulator.memory_map import (
    COMMAND_GUEST_ADDR,
    HOST_LAYOUT,
    RING_GUEST_ADDR,
    VMM_LAYOUT,
    guest_layout,
    guest_memory,
    populate,
    queue_layout,
    ring_layout,
)
from emulator.workloads.registry import load_workload
from emulator.workloads.workload import Workload

FEATURES: Final = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What another process needs to attach, beside the RAM's descriptor."""

    scenario: Scenario
    guest: tuple[str, Layout]
    ring: tuple[str, Layout]
    host: tuple[str, Layout]
    vmm: tuple[str, Layout]


class Machine:
    """One guest and its host: segments, guest RAM, and the objects over them."""

    def __init__(
        self,
        scenario: Scenario,
        ram: GuestRam,
        regions: Mapping[str, Region],
        mechanism: Mechanism,
        workload: Workload,
    ) -> None:
        self.scenario: Final = scenario
        self.mechanism: Final = mechanism
        self.workload: Final = workload
        self.ram: Final = ram
        self.regions: Final = dict(regions)
        self.queue_layout: Final = queue_layout(_ranges_max(mechanism))
        # The one queue that the mechanism uses, and the feature it exists by.
        hints = bool(getattr(mechanism, "free_page_hint", False))
        self.queue_name: Final = FREE_PAGE if hints else REPORTING
        self.features: Final = FEATURES | 1 << (F_FREE_PAGE_HINT if hints else F_PAGE_REPORTING)

    @classmethod
    def create(
        cls, scenario: Scenario, *, shared: bool, say: Callable[[str], None] = lambda _: None
    ) -> Self:
        """Make all of it, zeroed; `shared`: for other processes, too; `say`: tell the user.

        Raises ConfigError, and MachineLacks (too small a /dev/shm, no memory).
        """
        mechanism, workload = load_parts(scenario)
        return cls.create_for(scenario, mechanism, workload, shared=shared, say=say)

    @classmethod
    def create_for(
        cls,
        scenario: Scenario,
        mechanism: Mechanism,
        workload: Workload,
        *,
        shared: bool,
        say: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """As `create`, with parts that are made already."""
        prepared = workload.prepare(scenario, say)
        layouts = {
            "guest": guest_layout(
                scenario.guest,
                mechanism,
                {name: (array.dtype, len(array)) for name, array in prepared.items()},
            ),
            "ring": ring_layout(queue_layout(_ranges_max(mechanism))),
            "host": HOST_LAYOUT,
            "vmm": VMM_LAYOUT,
        }
        regions: dict[str, Region] = {}
        ram = None
        try:
            ram = GuestRam.create(scenario.guest.ram, scenario.guest.memory_bytes)
            for name, layout in layouts.items():
                regions[name] = Region.create(layout) if shared else Region.private(layout)
        except OSError as error:
            for region in regions.values():
                region.close()
            if ram is not None:
                ram.close()
            raise MachineLacks(f"the guest's memory cannot be made: {error}") from error
        if shared:
            populate(regions["guest"])
        for name, array in prepared.items():
            regions["guest"].arrays[f"workload.{name}"][:] = array
        return cls(scenario, ram, regions, mechanism, workload)

    @classmethod
    def attach(cls, handle: Handle, ram_fd: int, *parts: str) -> Self:
        """In another process: attach to some of "guest", "ring", "host" and "vmm"."""
        mechanism, workload = load_parts(handle.scenario)
        regions = {part: Region.attach(*getattr(handle, part)) for part in parts}
        guest = handle.scenario.guest
        ram = GuestRam(ram_fd, guest.ram, guest.memory_bytes)
        return cls(handle.scenario, ram, regions, mechanism, workload)

    def handle(self) -> Handle:
        """For `attach`."""
        return Handle(
            scenario=self.scenario,
            guest=(self.regions["guest"].name, self.regions["guest"].layout),
            ring=(self.regions["ring"].name, self.regions["ring"].layout),
            host=(self.regions["host"].name, self.regions["host"].layout),
            vmm=(self.regions["vmm"].name, self.regions["vmm"].layout),
        )

    @property
    def guest(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the guest's segment."""
        return self.regions["guest"].arrays

    @property
    def host(self) -> npt.NDArray[Any]:
        """HOST[1]."""
        return self.regions["host"].arrays["host"]

    def memory(self) -> GuestMemory:
        """What kernels take."""
        return guest_memory(self.guest, self.mechanism)

    def workload_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the workload prepared, and the state of a migration."""
        prepared = {
            name.removeprefix("workload."): array
            for name, array in self.guest.items()
            if name.startswith("workload.")
        }
        return {**prepared, **self.regions["vmm"].arrays}

    def phases(self) -> npt.NDArray[Any]:
        """PHASE[vcpus, PHASES_MAX]."""
        return self.guest["phases"].reshape(-1, PHASES_MAX)

    def reporter(self, *, kick: Notifier, call: Notifier) -> FreePageReporter | FreePageHinter:
        """The guest's half of the balloon device and how the two wake each other; empties the
        ring."""
        queue = DriverQueue(self._queue_views(), features=self.features)
        queue.initialize()
        if self.queue_name == REPORTING:
            return FreePageReporter(BalloonDriver({REPORTING: queue}), kick=kick, call=call)
        ring = self.regions["ring"].arrays
        driver = FreePageDriver(queue, ring["config"], ring["command"], COMMAND_GUEST_ADDR)
        return FreePageHinter(driver, kick=kick, call=call)

    def device(self, *, call: Notifier) -> BalloonDevice:
        """The host's half: it sees the guest's RAM and the ring, nothing else; `call` interrupts
        the guest when the configuration changes."""
        ring = self.regions["ring"].arrays
        space = AddressSpace(
            [
                MemoryRegion(guest_addr=0, size_bytes=self.ram.size_bytes, fd=self.ram.fd),
                MemoryRegion(
                    guest_addr=RING_GUEST_ADDR,
                    size_bytes=self.queue_layout.size_bytes,
                    memory=self._queue_bytes(),
                ),
                MemoryRegion(
                    guest_addr=COMMAND_GUEST_ADDR,
                    size_bytes=ring["command"].nbytes,
                    memory=ring["command"].view(np.uint8),
                ),
            ]
        )
        queue = DeviceQueue(self._queue_views(), space, features=self.features)
        queues = {self.queue_name: queue}
        config = ConfigSpace(ring["config"], call.notify)
        return BalloonDevice(queues, space, features=self.features, config=config)

    def migration(self) -> Migration | None:
        """The host's migration of this guest, if the workload is about one."""
        plan = getattr(self.workload, "migration", None)
        if plan is None:
            return None
        return Migration(self.ram, self.regions["vmm"].arrays["migration"], plan)

    def _queue_bytes(self) -> npt.NDArray[np.uint8]:
        return self.regions["ring"].arrays["queue"]

    def _queue_views(self) -> QueueViews:
        return self.queue_layout.views(self._queue_bytes(), RING_GUEST_ADDR)

    def unlink(self) -> None:
        """Remove the segments' names: from here on nothing can be left behind."""
        for region in self.regions.values():
            region.unlink()

    def close(self) -> None:
        """Give everything back; all objects made from this machine must be gone."""
        for region in self.regions.values():
            region.close()
        self.ram.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def load_parts(scenario: Scenario) -> tuple[Mechanism, Workload]:
    """The mechanism and the workload that a scenario names."""
    mechanism = load_mechanism(
        scenario.mechanism.name, scenario.mechanism.parameters, where=scenario.where("mechanism")
    )
    workload = load_workload(
        scenario.workload.kind, scenario.workload.parameters, where=scenario.where("workload")
    )
    return mechanism, workload


def _ranges_max(mechanism: Mechanism) -> int:
    return int(getattr(mechanism, "capacity", 1))
