"""The guest's memory management as it lies in shared memory (Linux 6.6, mm/page_alloc.c).

    pages        PAGE[nr_pages + sentinels]     one record a page frame, 16 bytes
    pageblocks   u1[nr_pages >> pageblock_order] the migratetype of each pageblock
    zones        ZONE[nr_zones]
    pcps         PCP[nr_cpus * nr_zones]        per-CPU lists: index cpu * nr_zones + zone
    actors       ACTOR[nr_cpus + 1]             what each vCPU, and the guest's kernel, counts
    kernel       KERNEL[1]                      what holds for the whole guest

and, in a guest that has files, its page cache:

    page_cache   PAGE_CACHE[1]                  lock, counts and parameters
    files        FILE[nr_files]                 where a file's slots begin
    slots        SLOT[pages of all files]       a page of a file: where it is, what is in it
    image        IMAGE[pages of all files]      the same page on the disk, which is the host's
    io           IO[nr_cpus]                    what each vCPU owes and has paid for its reads

A block of `1 << order` pages is described by its first page alone, its *head*; the other records
of a block are `NONE`.  Lists are doubly linked and circular, through `next` and `prev`, around a
sentinel: a record behind the last page (`free_list_sentinel`, `pcp_list_sentinel`).  So a block
leaves its list without anyone knowing which list that is, as in the kernel.
"""

from typing import Final

import numpy as np

PAGE_SIZE: Final = 4096
PAGE_SHIFT: Final = 12
MAX_ORDER: Final = 10  # Inclusive, as from Linux 6.4 on: the largest block is 4 MiB.
NR_ORDERS: Final = MAX_ORDER + 1
COSTLY_ORDER: Final = 3  # PAGE_ALLOC_COSTLY_ORDER: the per-CPU lists hold orders 0..3.
NO_PAGE: Final = -1

# Migratetypes (include/linux/mmzone.h); HIGHATOMIC, CMA and ISOLATE are not modelled.
UNMOVABLE: Final = 0
MOVABLE: Final = 1
RECLAIMABLE: Final = 2
NR_MIGRATETYPES: Final = 3
MIGRATETYPE_NAMES: Final = ("unmovable", "movable", "reclaimable")

NR_FREE_LISTS: Final = NR_ORDERS * NR_MIGRATETYPES
NR_LOWORDER_PCP_LISTS: Final = NR_MIGRATETYPES * (COSTLY_ORDER + 1)
NR_PCP_LISTS: Final = NR_LOWORDER_PCP_LISTS + 2  # Two for huge pages: other, movable.

# PAGE.kind: where the block is.  A page is always in exactly one of these places.
NONE: Final = 0  # not the head of a block (or, for an instant, between two places)
BUDDY: Final = 1  # on a free list of its zone
PCP: Final = 2  # on a per-CPU list of `owner`
ISOLATED: Final = 3  # taken off a free list by the hinting task
ALLOCATED: Final = 4  # in use by `owner`
RESERVED: Final = 5  # held by the guest's kernel since boot
BALLOON: Final = 6  # taken by the balloon driver: the host may have it
CACHE: Final = 7  # holds a page of a file, on an LRU list: `stamp` is its slot
NR_KINDS: Final = 8

# PAGE.mark.  On a free list: flags.  Elsewhere: the migratetype, in the low bits.
MARK_REPORTED: Final = 0x80  # PG_reported: the host has been told, content may be gone
MIGRATETYPE_MASK: Final = 0x03

PAGE: Final = np.dtype(
    [
        ("next", "<u4"),  # page frame or sentinel
        ("prev", "<u4"),
        ("stamp", "<u4"),  # free: ticks of the last free; in use: its generation; cache: its slot
        ("order", "u1"),
        ("kind", "u1"),
        ("owner", "u1"),  # actor, where kind is PCP or ALLOCATED
        ("mark", "u1"),
    ],
    align=True,
)
assert PAGE.itemsize == 16

# PAGE.stamp of a free block counts ticks of 2**16 ns (65.5 us) and wraps after 78 hours.
TICK_SHIFT: Final = 16
TICK_MASK: Final = 0xFFFFFFFF

# ZONE.lock: 0, or the owner's number + 1; the top bit says that somebody sleeps on the word.
LOCK_WAITERS: Final = 0x80000000
LOCK_OWNER_MASK: Final = 0x7FFFFFFF

# What `try_acquire_zone` found.
LOCK_HELD: Final = 0  # by somebody who lives
LOCK_ACQUIRED: Final = 1
LOCK_SEIZED: Final = 2  # from a vCPU that died with it: the zone may be half changed

ZONE: Final = np.dtype(
    {
        "names": [
            "lock",
            "start_pfn",
            "end_pfn",
            "flags",
            "managed",
            "free_pages",
            "isolated_pages",
            "reported_pages",
            "watermark_min",
            "watermark_low",
            "watermark_high",
            "watermark_boost",
            "lowmem_reserve",
            "nr_free",
            "list_moves",
            "list_steps",
            "deferred_pages",
        ],
        "formats": [
            "<u4",
            "<i8",
            "<i8",
            "<i8",
            "<i8",
            "<i8",  # pages on the free lists (NR_FREE_PAGES)
            "<i8",
            "<i8",  # pages of blocks that carry MARK_REPORTED
            "<i8",
            "<i8",
            "<i8",
            "<i8",
            "<i8",  # what an allocation that prefers a higher zone must leave, pages
            ("<i8", NR_ORDERS),  # blocks, over all migratetypes, as in struct free_area
            "<i8",  # blocks put on a free list or taken off one; what a hold of the lock costs
            "<i8",  # blocks that the hinting task only looked at, on its way along a list
            "<i8",  # of the free ones, without a record yet (`deferred_kernels`)
        ],
        "offsets": [0, 64, 72, 80, 88, 128, 136, 144, 152, 160, 168, 176, 184, 192, 280, 288, 296],
        "itemsize": 320,
    },
    align=True,
)
ZONE_NOFRAGMENT: Final = 1  # flags: preferred, it has lower ones tried before types are mixed

PCP_LISTS: Final = np.dtype(
    {
        "names": ["count", "high", "batch", "free_factor"],
        "formats": ["<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 64,  # A cache line each: every vCPU writes its own only.
    },
    align=True,
)

# Histograms with 16 buckets an octave: 0..15 exact, then 16 << n .. 32 << n in sixteenths.
BUCKETS_PER_OCTAVE: Final = 16
NR_BUCKETS: Final = 640  # up to 2**43

ACTOR: Final = np.dtype(
    {
        "names": [
            "operations",
            "pages_touched",
            "faults",
            "failed_allocations",
            "pages_checked",
            "violations",
            "generation",
            "now_ns",
            "lock_wait_ns",
            "lock_acquired_ns",
            "lock_hold_max_ns",
            "lock_takes",
            "lock_held_ns",
            "huge_faults",
            "drain_requested",
            "arrivals",
            "state",
            "held_pages",
            "alloc_latency_ns",
            "lock_hold_ns",
        ],
        "formats": [
            "<i8",  # allocations and frees
            "<i8",
            "<i8",  # pages that became resident (accounted RAM only)
            "<i8",
            "<i8",
            "<i8",
            "<i8",
            "<i8",  # this actor's last look at the clock
            "<i8",
            "<i8",
            "<i8",
            "<i8",  # how often it took a zone's lock
            "<i8",  # how long it held them in sum (virtual time only)
            "<i8",  # that made 512 pages resident at once, among `faults` (or in a memfd)
            "<u4",  # set by others: give your per-CPU lists back
            "<u4",  # barriers that this actor has come to
            "<u4",  # ACTOR_*
            "<i8",
            ("<i8", NR_BUCKETS),
            ("<i8", NR_BUCKETS),
        ],
        "offsets": [
            *range(0, 112, 8),
            128,
            132,
            136,
            144,
            192,
            192 + 8 * NR_BUCKETS,
        ],
        "itemsize": 192 + 16 * NR_BUCKETS,
    },
    align=True,
)
assert ACTOR.itemsize % 64 == 0

ACTOR_STARTING: Final = 0
ACTOR_RUNNING: Final = 1
ACTOR_DONE: Final = 2
ACTOR_LOST: Final = 3

KERNEL: Final = np.dtype(
    {
        "names": [
            "nr_pages",
            "nr_zones",
            "nr_cpus",
            "pageblock_order",
            "thp",
            "virtual",
            "virtual_now_ns",
            "priced",
            "doorbell",
            "lock_ns",
            "list_move_ns",
            "list_step_ns",
        ],
        # What a hold of a zone's lock costs in virtual time, if it is `priced`.
        "formats": [*["<i8"] * 8, "<u4", "<f8", "<f8", "<f8"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56, 64, 128, 136, 144],
        "itemsize": 192,  # `doorbell` on a line of its own: any vCPU that frees may ring it.
    },
    align=True,
)


# The page cache's LRU lists, one pair for the whole guest (a node's lruvec, of files only).
LRU_INACTIVE: Final = 0
LRU_ACTIVE: Final = 1
NR_LRU_LISTS: Final = 2

NO_SLOT_PAGE: Final = 0xFFFFFFFF  # SLOT.pfn of what is not cached

# SLOT.flags, of a page that is cached.
SLOT_ACTIVE: Final = 0x01  # PG_active: on the active list
SLOT_REFERENCED: Final = 0x02  # PG_referenced
SLOT_MAPPED: Final = 0x04  # some process has it in its page tables
SLOT_ACCESSED: Final = 0x08  # the accessed bit there
SLOT_DIRTY: Final = 0x10  # PG_dirty
SLOT_WRITEBACK: Final = 0x20  # PG_writeback: on its way to the disk
SLOT_RECLAIM: Final = 0x40  # PG_reclaim: to the inactive list's tail once it is written
SLOT_TORN: Final = 0x80  # a vCPU died writing it: it holds `version`, or the one after

SLOT: Final = np.dtype(
    [
        ("pfn", "<u4"),
        ("version", "<u4"),  # of the content that a reader must find
        ("file", "<u4"),
        ("flags", "<u4"),
    ]
)
IMAGE: Final = np.dtype(
    [
        ("version", "<u4"),  # of the content on the disk
        ("cached", "<u4"),  # whether the host has it in its own page cache
    ]
)
FILE: Final = np.dtype(
    [
        ("first_slot", "<i8"),
        ("pages", "<i8"),
        ("next_read", "<i8"),  # the page after the last one read: what a sequential reader wants
        ("dirty_pages", "<i8"),
        ("dirtied_ns", "<i8"),  # since when it has any (inode.dirtied_when)
        ("write_from", "<i8"),  # where write-back goes on (mapping.writeback_index)
    ]
)
IO: Final = np.dtype(
    {
        "names": ["owed_ns", "waited_ns"],  # for reads of the host: since it paid last, and in all
        "formats": ["<i8", "<i8"],
        "offsets": [0, 8],
        "itemsize": 64,
    },
    align=True,
)
WRITE_BACK: Final = np.dtype([("slot", "<u4"), ("version", "<u4")])  # a page on its way

_PAGE_CACHE_COUNTS: Final = (
    "writing",  # the slot that is being written + 1; 0: none
    "pages",
    "active_pages",
    "mapped_pages",
    "dirty_pages",
    "writeback_pages",
    "host_cache_pages",  # of the image, in the host's own cache
    "duplicate_pages",  # of those, in the guest's cache as well
    # What has happened since boot.
    "reads",  # pages
    "missed_pages",  # of those, not in the cache when they were asked for
    "host_reads",  # requests
    "major_faults",  # accesses through page tables that had to be read from the host
    "host_read_pages",
    "disk_read_pages",  # of those, not in the host's cache
    "written_pages",
    "scanned_pages",
    "activated_pages",
    "deactivated_pages",
    "unmapped_pages",  # by reclaim
    "kswapd_pages",  # reclaimed, by whom
    "direct_pages",
    "node_pages",
    "cache_first_pages",  # because a balloon's allocation asked for it
    "unmapped_control_pages",
    "dropped_pages",
    "kswapd_runs",
    # Parameters.
    "read_ahead_pages",
    "min_unmapped_pages",
    "node_reclaim",
    "unmapped_control",  # unmapped page control is on
    "host_read_ns",  # for a page
    "disk_read_ns",
)
PAGE_CACHE: Final = np.dtype(
    {
        "names": ["lock", "kswapd_wanted", "flush_wanted", *_PAGE_CACHE_COUNTS],
        "formats": ["<u4", "<u4", "<u4", *["<i8" for _ in _PAGE_CACHE_COUNTS]],
        "offsets": [0, 64, 68, *(128 + 8 * i for i in range(len(_PAGE_CACHE_COUNTS)))],
        "itemsize": 384,
    },
    align=True,
)


def nr_sentinels(*, zones: int, cpus: int) -> int:
    """List heads behind the page records."""
    return zones * NR_FREE_LISTS + zones * cpus * NR_PCP_LISTS + NR_LRU_LISTS
