"""What a scenario asks of the machine, and of the launcher, before it is run."""

from emulator.config.guest import LARGEST_BLOCK_BYTES
from emulator.config.scenario import Scenario
from emulator.config.units import write_size
from emulator.errors import ConfigError


def require_memory(scenario: Scenario, *, available_bytes: int) -> None:
    """Raise `ConfigError` if the guests' real pages would not fit in what the machine has left."""
    count = scenario.guests.count
    needed = scenario.memory_bytes
    if scenario.guest.ram == "memfd" and needed > available_bytes:
        fits = available_bytes * 3 // 4 // count // LARGEST_BLOCK_BYTES * LARGEST_BLOCK_BYTES
        of_all = f" for {count} guests" if count > 1 else ""
        raise ConfigError(
            f"{scenario.where('guest')}.memory: {write_size(needed)} of real pages{of_all} do not "
            f"fit, {available_bytes >> 20}MiB are available; use --memory {write_size(fits)}, "
            f"or --set guest.ram=accounted"
        )


def require_swap(scenario: Scenario) -> None:
    """Raise `ConfigError` where the host cannot swap, or has less than its guests hold for good."""
    host, guest = scenario.host, scenario.guest
    if host.swap_bytes is None or host.memory_bytes is None:
        return
    where = scenario.where("host")
    if guest.ram != "accounted" or scenario.run.launcher == "uml":
        raise ConfigError(
            f"{where}.swap: only accounted RAM can be swapped out; use --set guest.ram=accounted, "
            f"or leave the key out"
        )
    kept = sum(zone.reserved_bytes for zone in guest.all_zones) + LARGEST_BLOCK_BYTES
    needed = scenario.guests.count * kept
    if host.memory_bytes < needed:
        raise ConfigError(
            f"{where}.memory: {write_size(host.memory_bytes)} is less than what "
            f"{scenario.guests.count} guests cannot do without; use {write_size(needed)} or more"
        )


def require_guests(scenario: Scenario) -> None:
    """Raise `ConfigError` for several guests where there can be one only."""
    if scenario.guests.count == 1:
        return
    where = f"{scenario.where('guests')}.count: {scenario.guests.count} guests"
    if scenario.run.launcher == "uml":
        raise ConfigError(f"{where} are for run.launcher processes or virtual; a real Linux is one")
    if scenario.run.transport == "vhost-user":
        raise ConfigError(f'{where} are for run.transport = "shared"; over vhost-user there is one')
