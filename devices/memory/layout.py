"""A live migration, as the parts of a machine monitor share it: vCPU threads and migration thread.

The guest sees none of this.

    word        written by                          read by                   ordering
    state       vCPUs (REQUESTED), then the host    vCPUs, host               relaxed
    stopped[i]  vCPU i                              host                      relaxed
    the rest    host                                supervisor, at the end    relaxed
"""

from typing import Final

import numpy as np

MIGRATION_NONE: Final = 0
MIGRATION_REQUESTED: Final = 1
MIGRATION_RUNNING: Final = 2
MIGRATION_STOPPING: Final = 3  # Every vCPU stops, and says so.
MIGRATION_RESUMED: Final = 4  # They go on, with the memory of the destination.
MIGRATION_VCPUS_MAX: Final = 64

MIGRATION: Final = np.dtype(
    [
        ("state", "<u4"),
        ("stopped", "<u4", (MIGRATION_VCPUS_MAX,)),
        ("completed", "<i8"),  # 0: a vCPU did not stop, and the guest stayed where it was
        ("rounds", "<i8"),
        ("sent_pages", "<i8"),  # with content
        ("zero_pages", "<i8"),  # never touched, or discarded: only their number is sent
        ("skipped_pages", "<i8"),  # dirty, and hinted
        ("final_pages", "<i8"),  # of those sent: while the guest stood still
        ("total_ns", "<i8"),
        ("downtime_ns", "<i8"),
    ],
    align=True,
)
