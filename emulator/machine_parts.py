"""What a scenario asks of a machine: its mechanism, workload and balloon, and what follows."""

from devices.balloon.features import feature_bits
from devices.balloon.layout import DEFLATE, FREE_PAGE, INFLATE, REPORTING, STATS
from devices.virtio.queue_layout import QueueLayout
from emulator.config.balloon import BalloonConfig
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.guest.hinting.cycle import Mechanism
from emulator.guest.hinting.registry import load_mechanism
from emulator.host.managers.manager import Manager
from emulator.host.managers.registry import load_manager
from emulator.memory_map import queue_layout
from emulator.workloads.registry import load_workload
from emulator.workloads.workload import Workload


def load_parts(scenario: Scenario) -> tuple[Mechanism, Workload]:
    """The mechanism and the workload that a scenario names."""
    mechanism = load_mechanism(
        scenario.mechanism.name, scenario.mechanism.parameters, where=scenario.where("mechanism")
    )
    balloon = balloon_of(scenario, mechanism)
    if balloon is not None:  # So that a bad one is found before anything runs.
        load_balloon_manager(scenario, balloon)
        if balloon.deflate_on_oom and has_balloon_hint(mechanism):
            raise ConfigError(
                f"{scenario.where('balloon')}.deflate_on_oom: is the feature bit by which "
                f"{mechanism.name} has its hint; use --set balloon.deflate_on_oom=false"
            )
    workload = load_workload(
        scenario.workload.kind, scenario.workload.parameters, where=scenario.where("workload")
    )
    if scenario.host.swap_bytes is not None and getattr(workload, "migration", None) is not None:
        raise ConfigError(
            f"{scenario.where('host')}.swap: a guest that is migrated is not swapped out; leave "
            f"the key out"
        )
    return mechanism, workload


def balloon_of(scenario: Scenario, mechanism: Mechanism) -> BalloonConfig | None:
    """The guest's balloon: as the scenario says, or by default if the mechanism is one."""
    if scenario.balloon is None and getattr(mechanism, "balloon", False):
        return BalloonConfig(deflate_on_oom=not has_balloon_hint(mechanism))
    return scenario.balloon


def has_balloon_hint(mechanism: Mechanism) -> bool:
    """Whether the driver reclaims page cache first where the host wishes that."""
    return bool(getattr(mechanism, "balloon_hint", False))


def load_balloon_manager(scenario: Scenario, balloon: BalloonConfig) -> Manager:
    """The manager that a scenario names."""
    where = scenario.where("balloon.manager")
    manager = load_manager(balloon.manager.name, balloon.manager.parameters, where=where)
    if getattr(manager, "needs_host_memory", False) and scenario.host.memory_bytes is None:
        raise ConfigError(f"{where}.name: {manager.name} needs host.memory, such as 8GiB")
    return manager


def queue_layouts(mechanism: Mechanism, balloon: BalloonConfig | None) -> dict[str, QueueLayout]:
    """The queues that are used, by name."""
    ranges_max = int(getattr(mechanism, "capacity", 1))
    names = [INFLATE, DEFLATE, STATS] if balloon is not None else []
    names.append(FREE_PAGE if getattr(mechanism, "free_page_hint", False) else REPORTING)
    return {name: queue_layout(name, ranges_max) for name in names}


def features_of(mechanism: Mechanism, balloon: BalloonConfig | None) -> int:
    """What host and guest agree on."""
    hints = bool(getattr(mechanism, "free_page_hint", False))
    names = ["free_page_hint" if hints else "page_reporting"]
    if balloon is not None:
        names += ["must_tell_host", "stats_vq"] + ["deflate_on_oom"] * balloon.deflate_on_oom
        names += ["balloon_hint"] * has_balloon_hint(mechanism)
    return feature_bits(names)


def swap_actors(scenario: Scenario) -> int:
    """How many access RAM that the host can swap out: vCPUs and kernel; 0: it has no swap."""
    return 0 if scenario.host.swap_bytes is None else scenario.guest.vcpus + 1


def huge_pages(scenario: Scenario) -> bool:
    """Whether the host puts huge pages behind the guest: under `processes`, two vCPUs at once could
    not do that to accounted RAM."""
    virtual = scenario.run.launcher == "virtual"
    return scenario.host.huge_pages and (virtual or scenario.guest.ram == "memfd")


def check_transport(scenario: Scenario) -> None:
    """Raise ConfigError for what an emulated guest cannot do over vhost-user."""
    if scenario.run.transport != "vhost-user":
        return
    if scenario.guest.ram != "memfd":
        raise ConfigError(
            f"{scenario.where('run')}.transport: vhost-user hands memory over, so that guest.ram "
            f'must be "memfd"'
        )
    if scenario.host.huge_pages:
        raise ConfigError(
            f"{scenario.where('host')}.huge_pages: the host does not tell over vhost-user what it "
            f"has given back; use --set host.huge_pages=false"
        )
