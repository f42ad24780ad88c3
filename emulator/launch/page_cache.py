"""The page cache's parts of a machine whose workload has files, for either launcher."""

from emulator.guest.boot import boot_page_cache
from emulator.guest.clock import Clock
from emulator.guest.file_io import FileIo
from emulator.guest.mm.views import GuestMemory
from emulator.guest.page_cache_task import Kswapd, PageCacheTask, WriteBack
from emulator.machine import Machine, Wires


def boot_files(machine: Machine, mm: GuestMemory) -> None:
    """Nothing is cached; the guest has booted."""
    if machine.file_pages:
        boot_page_cache(mm, machine.file_pages, machine.page_cache_config)


def file_io(
    machine: Machine, mm: GuestMemory, cpu: int, wires: Wires, clock: Clock
) -> FileIo | None:
    """What a vCPU does about files; None where there are none."""
    if not machine.file_pages:
        return None
    kswapd, flusher = wires["kswapd"], wires["flusher"]
    return FileIo(mm, cpu, clock, machine.page_cache_config, kswapd=kswapd, flusher=flusher)


def page_cache_task(
    machine: Machine, mm: GuestMemory, wires: Wires, clock: Clock
) -> PageCacheTask | None:
    """kswapd and write-back; None where there are no files."""
    if not machine.file_pages:
        return None
    flusher = wires["flusher"]
    swap = machine.swap_in(machine.scenario.guest.vcpus, clock, wires)
    return PageCacheTask(
        Kswapd(mm, clock, freed=wires["freed"], flusher=flusher),
        WriteBack(mm, machine.ram.view(), clock, machine.page_cache_config, swap),
        wake_kswapd=wires["kswapd"],
        wake_flusher=flusher,
    )
