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
