"""A guest's memory management without a guest: what the series of the allocator work on."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from devices.memory.ram import GuestRam
from devices.memory.region import Layout, Region
from emulator.config.guest import GuestConfig
from emulator.errors import MachineLacks, RunFailed
from emulator.guest.boot import boot
from emulator.guest.mm.check_kernels import CHECK_MESSAGES, check_pcp, check_zone
from emulator.guest.mm.layout import NR_KINDS
from emulator.guest.mm.views import GuestMemory, array_shapes


def layout_of(guest: GuestConfig) -> Layout:
    """The arrays of its memory management."""
    return array_shapes(
        nr_pages=guest.pages,
        zones=len(guest.all_zones),
        cpus=guest.vcpus,
        pageblock_order=guest.pageblock_order,
    )


@contextmanager
def new_region(layout: Layout, *, shared: bool) -> Iterator[Region]:
    """A region, zeroed and not yet touched; MachineLacks if /dev/shm is too small for it."""
    try:
        region = Region.create(layout) if shared else Region.private(layout)
    except OSError as error:
        raise MachineLacks(str(error)) from error
    with region:
        yield region


def memory_of(region: Region) -> GuestMemory:
    """What kernels take, under no mechanism; the region may hold further arrays."""
    own = GuestMemory._fields
    return GuestMemory(**{name: it for name, it in region.arrays.items() if name in own})


def boot_guest(guest: GuestConfig, region: Region, *, deferring: bool = False) -> GuestMemory:
    """Bring zeroed arrays up as a run does, in real time; the guest's RAM is not touched.

    deferring: most page records are left to `init_deferred`.
    """
    mm = memory_of(region)
    ram = GuestRam.create("accounted", guest.memory_bytes)
    try:
        boot(
            mm,
            ram.view(),
            guest.all_zones,
            thp=guest.thp,
            pageblock_order=guest.pageblock_order,
            virtual=False,
            deferring=deferring,
        )
    finally:
        ram.close()
    return mm


def require_sound(mm: GuestMemory) -> None:
    """RunFailed where the allocator is not sound after a benchmark: the figure is worthless."""
    counts = np.zeros(NR_KINDS, np.int64)
    error, where = check_zone(mm, 0, counts)
    for cpu in range(int(mm.kernel[0]["nr_cpus"])):
        if error == 0:
            error, where = check_pcp(mm, cpu, 0)
    if error != 0:
        raise RunFailed(f"page {where}: {CHECK_MESSAGES[error]}")
    if int(counts.sum()) != int(mm.kernel[0]["nr_pages"]):
        raise RunFailed(f"{counts.sum()} pages of {mm.kernel[0]['nr_pages']} are accounted for")
