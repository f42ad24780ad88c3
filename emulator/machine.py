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
from devices.balloon.layout import (
    DEFLATE,
    FREE_PAGE,
    INFLATE,
    PFNS_MAX,
    REPORTING,
    STATS,
)
from devices.balloon.page_number_driver import PageNumberDriver
from devices.balloon.page_number_task import HostTeller
from devices.balloon.stats_driver import StatsDriver
from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.memory.ram import GuestRam
from devices.memory.region import Layout, Region
from devices.virtio.device_queue import DeviceQueue
from devices.virtio.driver_queue import DriverQueue
from devices.virtio.notifier import Notifier
from devices.virtio.queue_layout import QueueViews
from emulator.config.scenario import Scenario
from emulator.errors import MachineLacks
from emulator.guest.balloon.balloon import Balloon
from emulator.guest.balloon.shortage import OutOfMemory
from emulator.guest.balloon.task import BalloonTask
from emulator.guest.clock import Clock
from emulator.guest.cost import GuestCosts
from emulator.guest.hinting.cycle import Mechanism
from emulator.guest.hinting.free_page_task import FreePageHinter
from emulator.guest.layout import PHASES_MAX
from emulator.guest.mm.views import GuestMemory
from emulator.guest.swap_in import SwapIn
from emulator.host.managers.manager import Manager
from emulator.host.migration import Migration
from emulator.machine_parts import (
    balloon_of,
    check_transport,
    features_of,
    has_balloon_hint,
    huge_pages,
    load_balloon_manager,
    load_parts,
    queue_layouts,
    swap_actors,
)
from emulator.memory_map import (
    HOST_LAYOUT,
    SENT_GUEST_ADDRS,
    VMM_LAYOUT,
    guest_layout,
    guest_memory,
    queue_guest_addr,
    ring_layout,
)
from emulator.workloads.workload import Workload, files_of

# What a guest's processes wake each other by: "freed" the hinting task, "short" and "config" the
# balloon's tasks, relief.CPU a vCPU that was out of memory, "kswapd" and "flusher" the tasks of the
# page cache, "pressure" the host's swap and swap.ACTOR who waits for that, and for each queue
# NAME.kick the device and NAME.call the driver.
Wires = Mapping[str, Notifier]


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
        self.balloon_config: Final = balloon_of(scenario, mechanism)
        self.file_pages, self.page_cache_config = files_of(scenario, workload)
        self.queue_layouts: Final = queue_layouts(mechanism, self.balloon_config)
        self.features: Final = features_of(mechanism, self.balloon_config)

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
        balloon = balloon_of(scenario, mechanism)
        check_transport(scenario)
        layouts = {
            "guest": guest_layout(
                scenario.guest,
                mechanism,
                {name: (array.dtype, len(array)) for name, array in prepared.items()},
                balloon=balloon is not None,
                file_pages=files_of(scenario, workload)[0],
            ),
            "ring": ring_layout(queue_layouts(mechanism, balloon)),
            "host": HOST_LAYOUT,
            "vmm": VMM_LAYOUT,
        }
        regions: dict[str, Region] = {}
        ram = None
        try:
            guest = scenario.guest
            ram = GuestRam.create(
                guest.ram,
                guest.memory_bytes,
                huge=huge_pages(scenario),
                swap_actors=swap_actors(scenario),
            )
            for name, layout in layouts.items():
                regions[name] = Region.create(layout) if shared else Region.private(layout)
        except OSError as error:
            for region in regions.values():
                region.close()
            if ram is not None:
                ram.close()
            raise MachineLacks(f"the guest's memory cannot be made: {error}") from error
        for name, array in prepared.items():
            regions["guest"].arrays[f"workload.{name}"][:] = array
        return cls(scenario, ram, regions, mechanism, workload)

    @classmethod
    def attach(cls, handle: Handle, ram_fd: int, *parts: str) -> Self:
        """In another process: attach to some of "guest", "ring", "host" and "vmm"."""
        mechanism, workload = load_parts(handle.scenario)
        regions = {part: Region.attach(*getattr(handle, part)) for part in parts}
        guest = handle.scenario.guest
        ram = GuestRam(
            ram_fd,
            guest.ram,
            guest.memory_bytes,
            huge=huge_pages(handle.scenario),
            swap_actors=swap_actors(handle.scenario),
        )
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

    def wire_names(self) -> list[str]:
        """What `Wires` must hold."""
        queues = [f"{name}.{end}" for name in self.queue_layouts for end in ("kick", "call")]
        inflatable = self.balloon_config is not None
        vcpus = range(self.scenario.guest.vcpus if inflatable else 0)
        names = ["freed", "short", "config", *(["kswapd", "flusher"] if self.file_pages else [])]
        names += ["pressure"] if self.ram.swap_actors else []
        swapping = (f"swap.{actor}" for actor in range(self.ram.swap_actors))
        return [*names, *queues, *(f"relief.{cpu}" for cpu in vcpus), *swapping]

    def reporter(self, wires: Wires) -> FreePageReporter | FreePageHinter:
        """The hinting task's way to the device; empties the ring."""
        name = FREE_PAGE if FREE_PAGE in self.queue_layouts else REPORTING
        queue, kick, call = self._driver_queue(name), wires[f"{name}.kick"], wires[f"{name}.call"]
        if name == REPORTING:
            return FreePageReporter(BalloonDriver({REPORTING: queue}), kick=kick, call=call)
        ring = self.regions["ring"].arrays
        addr = SENT_GUEST_ADDRS["command"]
        driver = FreePageDriver(queue, ring["config"], ring["command"], addr)
        return FreePageHinter(driver, kick=kick, call=call)

    def balloon_task(
        self, mm: GuestMemory, wires: Wires, costs: GuestCosts | None = None
    ) -> BalloonTask | None:
        """The guest's balloon, empty, if it has one; empties its rings.  The guest has booted.

        costs: what it pays in virtual time.
        """
        if self.balloon_config is None:
            return None
        ring = self.regions["ring"].arrays
        balloon = Balloon(
            mm,
            self.guest["balloon"],
            ring["config"],
            deflate_on_oom=self.balloon_config.deflate_on_oom,
            hinted=has_balloon_hint(self.mechanism),
        )
        tellers = []
        for index, name in enumerate((INFLATE, DEFLATE)):
            pfns = ring["pfns"][index * PFNS_MAX : (index + 1) * PFNS_MAX]
            addr = SENT_GUEST_ADDRS["pfns"] + index * pfns.nbytes
            driver = PageNumberDriver(self._driver_queue(name), pfns, addr)
            kick, call = wires[f"{name}.kick"], wires[f"{name}.call"]
            tellers.append(HostTeller(driver, kick=kick, call=call))
        return BalloonTask(
            balloon,
            inflate=tellers[0],
            deflate=tellers[1],
            hinting=self.guest["hinting"],
            freed=wires["freed"],
            costs=costs,
        )

    def out_of_memory(self, cpu: int, wires: Wires) -> OutOfMemory | None:
        """What a vCPU does when it is out of memory; None where there is no balloon."""
        if self.balloon_config is None:
            return None
        state, shortages = self.guest["balloon"], self.guest["shortages"]
        return OutOfMemory(state, shortages, cpu, wires["short"], wires[f"relief.{cpu}"])

    def swap_in(self, actor: int, clock: Clock, wires: Wires) -> SwapIn | None:
        """What an actor does about the host's swap; None where it has none."""
        if not self.ram.swap_actors:
            return None
        return SwapIn(
            self.ram.swap_view().traffic,
            self.ram.swap_control(),
            actor,
            clock,
            read_s=self.scenario.host.swap_read_s,
            pressure=wires["pressure"],
            relief=wires[f"swap.{actor}"],
        )

    def stats_driver(self) -> StatsDriver:
        """The guest's half of the statistics queue; empties the ring."""
        figures = self.regions["ring"].arrays["figures"]
        return StatsDriver(self._driver_queue(STATS), figures, SENT_GUEST_ADDRS["figures"])

    def ring_addrs(self) -> dict[str, int]:
        """Arrays of the ring's segment that the device sees, and their guest addresses."""
        queues = {f"queue.{n}": queue_guest_addr(i) for i, n in enumerate(self.queue_layouts)}
        return {**SENT_GUEST_ADDRS, **queues}

    def device(self, wires: Wires) -> BalloonDevice:
        """The host's half: it sees the guest's RAM, the rings and what is sent by them."""
        ring = self.regions["ring"].arrays
        regions = [MemoryRegion(guest_addr=0, size_bytes=self.ram.size_bytes, fd=self.ram.fd)]
        for name, addr in self.ring_addrs().items():
            memory = ring[name].view(np.uint8)
            regions.append(MemoryRegion(guest_addr=addr, size_bytes=len(memory), memory=memory))
        space = AddressSpace(regions)
        queues = {
            name: DeviceQueue(self._queue_views(name), space, features=self.features)
            for name in self.queue_layouts
        }

        config = ConfigSpace(ring["config"], lambda: self.tell_config_changed(wires))
        return BalloonDevice(queues, space, features=self.features, config=config)

    def tell_config_changed(self, wires: Wires) -> None:
        """Wake the driver's tasks: the device has changed the configuration."""
        wires["config"].notify()
        if FREE_PAGE in self.queue_layouts:
            wires[f"{FREE_PAGE}.call"].notify()  # As on a shared line.

    def manager(self) -> Manager:
        """Who sets the balloon's target."""
        assert self.balloon_config is not None
        return load_balloon_manager(self.scenario, self.balloon_config)

    def migration(self) -> Migration | None:
        """The host's migration of this guest, if the workload is about one."""
        plan = getattr(self.workload, "migration", None)
        if plan is None:
            return None
        return Migration(self.ram, self.regions["vmm"].arrays["migration"], plan)

    def _driver_queue(self, name: str) -> DriverQueue:
        return DriverQueue(self._queue_views(name), features=self.features)

    def _queue_views(self, name: str) -> QueueViews:
        index = list(self.queue_layouts).index(name)
        memory = self.regions["ring"].arrays[f"queue.{name}"]
        return self.queue_layouts[name].views(memory, queue_guest_addr(index))

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
