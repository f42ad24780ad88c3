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

LATENCY_EVERY: Final = 64  # One allocation of so many is timed: two looks at the clock cost 50 ns.
