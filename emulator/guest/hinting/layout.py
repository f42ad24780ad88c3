"""What the hinting task counts, in shared memory; written by it alone, read by the supervisor."""

from typing import Final

import numpy as np

from emulator.guest.mm.layout import NR_BUCKETS

HINTING: Final = np.dtype(
    [
        ("reports", "<i8"),  # requests that the host acknowledged
        ("blocks", "<i8"),
        ("claimed_bytes", "<i8"),
        ("failed_reports", "<i8"),
        ("wakeups", "<i8"),
        ("reclaim_latency_ns", "<i8", (NR_BUCKETS,)),  # last free of a block -> acknowledged
    ],
    align=True,
)

BATCH: Final = np.dtype([("pfn", "<i8"), ("order", "<i8"), ("zone", "<i8")], align=True)
