"""Where everything that processes share lies, who writes it, who reads it, and with which ordering.

Four segments of shared memory and one memfd; a process attaches only what it may see.

    segment  attached by                     arrays
    guest    vCPUs, guest kernel             kernel zones pcps actors pageblocks pages
                                             hinting phases mechanism.* workload.*
                                             balloon shortages, if the guest has a balloon
                                             page_cache.*, if its workload has files
    ring     guest kernel, host              queue.NAME: a split virtqueue, its indirect tables
                                             config, command, pfns, figures
    host     host                            host
    vmm      vCPUs, host                     migration: what a machine monitor's threads share
    (memfd)  vCPUs, guest kernel, host       guest RAM
    The supervisor attaches all segments and only reads, but for what it takes back from a vCPU that
    died: that it does as the guest kernel would, with the locks.

    word                        written by                      read by          ordering
    zones.lock                  vCPUs, guest kernel             the same         acquire, release
    zones.deferred_pages        whoever holds zones.lock        guest kernel, too  relaxed
    zones.* (rest)              whoever holds zones.lock        the same         by the lock
    pageblocks                  whoever holds zones.lock        who frees, too   relaxed (as Linux)
    pages of free blocks        whoever holds zones.lock        the same         by the lock
    pages on a per-CPU list     that vCPU                       that vCPU        one writer
    pages in use                their owner                     their owner; `kind`, `order` and
                                                                `mark` by whoever holds zones.lock
    pages in use: owner         who frees for another; who takes back from a dead one: the first to
                                compare and exchange has the block
    pages in the page cache     whoever holds page_cache.control.lock; `kind` is read by whoever
                                holds zones.lock, too
    pages isolated              guest kernel                    guest kernel     by the lock
    pcps                        that vCPU                       that vCPU        one writer
    page_cache.control.lock     vCPUs, guest kernel             the same         acquire, release
    page_cache.control.kswapd_wanted, .flush_wanted
                                vCPUs, guest kernel             the same         relaxed
    page_cache.control.* (rest) whoever holds the lock          the same; supervisor    relaxed
    page_cache.files, .slots    whoever holds the lock          the same         by the lock
    page_cache.image            the same, for the host: reads and write-back stand for its disk
    page_cache.io               that vCPU                       that vCPU        one writer
    actors.drain_requested      any vCPU                        that vCPU        relaxed, exchange
    actors.arrivals, .state     that vCPU (LOST: supervisor)    vCPUs            relaxed
    actors.* (rest)             that actor                      supervisor       relaxed
    kernel.doorbell             vCPUs                           vCPUs            release, relaxed
    kernel.virtual_now_ns,      the one process of a run in virtual time
        .priced, the prices
    kernel.* (rest)             guest kernel, before `ready`    all              by the start signal
    hinting                     guest kernel                    supervisor       relaxed
    phases                      that vCPU                       supervisor       relaxed
    mechanism.*                 as its file says
    balloon                     guest kernel                    vCPUs, supervisor  relaxed
    shortages.answered          guest kernel                    that vCPU        relaxed
    shortages.* (rest)          that vCPU                       guest kernel, supervisor  relaxed
    queue.*                     as VIRTIO 1.3 section 2.7 says
    (memfd) huge                vCPUs, guest kernel, host       the same         plain: a hint
    (memfd) swap                as devices/memory/swap_layout.py says, if the host can swap it out
    config.actual               guest kernel                    host             relaxed
    config.* (rest)             host                            guest kernel     relaxed
    command, pfns, figures      guest kernel                    host             by the queue
    migration                   as devices/memory/layout.py says
    host                        host                            supervisor       relaxed

Relaxed words are single aligned loads and stores of at most 8 bytes; the supervisor reads them for
display while the run goes on, and once more when their writer has ended.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import (
    BALLOON_CONFIG,
    FREE_PAGE,
    PAGE_REPORTING_CAPACITY,
    PFN,
    PFNS_MAX,
    REPORTING,
    STATS_ENTRY,
    STATS_TAGS,
)
from devices.memory.layout import MIGRATION
from devices.memory.region import Layout
from devices.virtio.queue_layout import QueueLayout
from emulator.config.guest import GuestConfig
from emulator.guest.balloon.layout import BALLOON_STATE, SHORTAGE
from emulator.guest.hinting.cycle import Geometry, Mechanism
from emulator.guest.hinting.layout import HINTING
from emulator.guest.layout import PHASE, PHASES_MAX
from emulator.guest.mm.layout import PAGE_SHIFT
from emulator.guest.mm.views import GuestMemory, array_shapes, cache_shapes, page_cache
from emulator.host.layout import HOST

# Guest-physical addresses above any guest's RAM: of the queues, each in a region of its own, and
# of what the driver sends from: commands, page numbers (inflate, then deflate), figures.
_QUEUE_GUEST_ADDR: Final = 1 << 52
_QUEUE_STRIDE: Final = 1 << 32
SENT_GUEST_ADDRS: Final = {"command": 1 << 53, "pfns": 2 << 53, "figures": 3 << 53}


def geometry(guest: GuestConfig) -> Geometry:
    """What arrays are sized by."""
    return Geometry(
        nr_pages=guest.memory_bytes >> PAGE_SHIFT,
        nr_zones=len(guest.all_zones),
        nr_cpus=guest.vcpus,
        pageblock_order=guest.pageblock_order,
    )


def guest_layout(
    guest: GuestConfig,
    mechanism: Mechanism,
    workload: Layout,
    *,
    balloon: bool,
    file_pages: Sequence[int] = (),
) -> Layout:
    """The guest's segment; `workload`: the arrays that a workload brings along; `file_pages`: the
    sizes of its files."""
    sizes = geometry(guest)
    inflatable: Layout = {"balloon": (BALLOON_STATE, 1), "shortages": (SHORTAGE, sizes.nr_cpus)}
    cache = cache_shapes(nr_files=len(file_pages), file_pages=sum(file_pages), cpus=sizes.nr_cpus)
    return {
        **array_shapes(
            nr_pages=sizes.nr_pages,
            zones=sizes.nr_zones,
            cpus=sizes.nr_cpus,
            pageblock_order=sizes.pageblock_order,
        ),
        "hinting": (HINTING, 1),
        "phases": (PHASE, sizes.nr_cpus * PHASES_MAX),
        **(inflatable if balloon else {}),
        **({f"page_cache.{name}": it for name, it in cache.items()} if file_pages else {}),
        **{f"mechanism.{name}": it for name, it in mechanism.shared_arrays(sizes).items()},
        **{f"workload.{name}": it for name, it in workload.items()},
    }


def guest_memory(arrays: Mapping[str, npt.NDArray[Any]], mechanism: Mechanism) -> GuestMemory:
    """What kernels take, from the guest's segment."""
    own = {
        name.removeprefix("mechanism."): array
        for name, array in arrays.items()
        if name.startswith("mechanism.")
    }
    return GuestMemory(
        pages=arrays["pages"],
        pageblocks=arrays["pageblocks"],
        zones=arrays["zones"],
        pcps=arrays["pcps"],
        actors=arrays["actors"],
        kernel=arrays["kernel"],
        hooks=mechanism.hooks(own),
        cache=page_cache(arrays),
    )


def queue_guest_addr(index: int) -> int:
    """Where the queue of this number lies."""
    return _QUEUE_GUEST_ADDR + index * _QUEUE_STRIDE


def queue_layout(name: str, ranges_max: int) -> QueueLayout:
    """A queue; that of reports or hints is for requests of up to `ranges_max` ranges."""
    entries = ranges_max if name in (REPORTING, FREE_PAGE) else 1
    size = max(PAGE_REPORTING_CAPACITY, 1 << (entries - 1).bit_length())
    return QueueLayout(size=size, table_entries=entries)


def ring_layout(queues: Mapping[str, QueueLayout]) -> Layout:
    """The ring's segment."""
    return {
        **{f"queue.{name}": (np.dtype("u1"), it.size_bytes) for name, it in queues.items()},
        "config": (BALLOON_CONFIG, 1),
        "command": (np.dtype("<u4"), 2),
        "pfns": (PFN, 2 * PFNS_MAX),
        "figures": (STATS_ENTRY, len(STATS_TAGS)),
    }


HOST_LAYOUT: Final[Layout] = {"host": (HOST, 1)}
VMM_LAYOUT: Final[Layout] = {"migration": (MIGRATION, 1)}
