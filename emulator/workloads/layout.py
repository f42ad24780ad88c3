"""What the compiled loops of the workloads keep between two batches."""

from typing import Final

import numpy as np

# The blocks that a vCPU holds: private to its process.
HELD: Final = np.dtype([("pfn", "<u4"), ("order", "u1"), ("unused", "u1", (3,))])

CHURN: Final = np.dtype(
    [
        ("random", "<i8"),  # state of xorshift64*
        ("held", "<i8"),  # blocks in the table
        ("held_pages", "<i8"),
        ("level_pages", "<i8"),  # the level around which it allocates and frees
        ("order_max", "<i8"),
    ]
)

FILE_REQUESTS: Final = np.dtype(
    [
        ("random", "<i8"),
        ("request_pages", "<i8"),
        ("files", "<i8"),
        ("hot_files", "<i8"),  # the first ones
        ("mapped_files", "<i8"),  # the first ones of these
        ("hot_of_1024", "<i8"),  # requests
        ("writes_of_1024", "<i8"),
    ]
)
FILE_PROGRESS: Final = np.dtype(  # One record a vCPU, a cache line each.
    {
        "names": ["read_pages", "written_pages"],
        "formats": ["<i8", "<i8"],
        "offsets": [0, 8],
        "itemsize": 64,
    },
    align=True,
)

FAULT_PROGRESS: Final = np.dtype(  # One record a vCPU, a cache line each.
    {
        "names": ["pages", "elapsed_s"],
        "formats": ["<i8", "<f8"],
        "offsets": [0, 8],
        "itemsize": 64,
    },
    align=True,
)

HOG_PROGRESS: Final = np.dtype(  # One record a vCPU, a cache line each.
    {
        "names": ["fill_ns_max"],
        "formats": ["<i8"],
        "offsets": [0],
        "itemsize": 64,
    },
    align=True,
)

# Where a replayed trace's blocks are.  A slot's operations come from several vCPUs: each waits for
# its turn, which the vCPU before it passes on (release) after it has written the rest.
SLOT: Final = np.dtype(
    [
        ("turn", "<u4"),
        ("pfn", "<u4"),  # NO_BLOCK where the allocation failed
        ("stamp", "<u4"),  # of the block: what it is known by if its owner dies
        ("unused", "<u4"),
    ]
)
NO_BLOCK: Final = 0xFFFFFFFF

REPLAY_PROGRESS: Final = np.dtype(  # One record a vCPU, a cache line each.
    {
        "names": ["applied", "skipped"],
        "formats": ["<i8", "<i8"],
        "offsets": [0, 8],
        "itemsize": 64,
    },
    align=True,
)
TURN_SPINS_MAX: Final = 500  # About 10 us: another vCPU is usually just about to pass the turn on.

LATENCY_EVERY: Final = 64  # One allocation of so many is timed: two looks at the clock cost 50 ns.

# Ageing: the blocks of a vCPU, in a list for each tick at which some of them die (a timing wheel:
# Varghese and Lauck 1987).  Private to its process; lists and free places are chained by `next`.
AGEING_BLOCK: Final = np.dtype(
    [("pfn", "<u4"), ("next", "<i4"), ("order", "u1"), ("unused", "u1", (3,))]
)
NO_SLOT: Final = -1
LIFETIMES: Final = 3  # short, medium and long

AGEING: Final = np.dtype(
    [
        ("random", "<i8"),  # as CHURN.random
        ("free_slot", "<i8"),  # the first of the free places
        ("tick", "<i8"),  # up to which everything has died
        ("order_max", "<i8"),
        ("per_tick", "<i8"),  # allocations
        ("refused", "<i8"),  # no memory, or no place for the block
        ("share", "<i8", (LIFETIMES,)),  # of 2**20 allocations, summed up
        ("ticks", "<i8", (LIFETIMES,)),  # the mean lifetime
    ],
    align=True,
)
SHARE_BITS: Final = 20

# What is free at a time: a row of the picture of which orders survive.
FREE_BLOCKS: Final = np.dtype([("time_s", "<f8"), ("blocks", "<i8", (11,))], align=True)

# Of the 315 173 allocations in the recorded compile (compile-2g, while gcc runs), 6.2 % were
# unmovable and nearly all the rest movable; all but 0.3 % were of single pages.
UNMOVABLE_EVERY: Final = 16
# There, what a compiler allocated and did not free when it exited lay strewn among the rest of what
# it allocated, in runs of 3.0 pages (cc1, 180 processes; the assembler: 2.3).
OUTPUT_PIECE: Final = 3

# A file that grows while its process does.
OUTPUT: Final = np.dtype(
    [
        ("first", "<i8"),  # where its pages are in the table of its files
        ("pages", "<i8"),  # of all of it
        ("written", "<i8"),  # so far
    ]
)

BUILD_PROGRESS: Final = np.dtype(  # One record a vCPU, a cache line each.
    {
        "names": ["jobs", "began_ns", "ended_ns", "out_of_memory"],
        "formats": ["<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 64,
    },
    align=True,
)
