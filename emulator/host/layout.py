"""What the host counts, in shared memory: written by the host alone, read by the supervisor."""

from typing import Final

import numpy as np

HOST: Final = np.dtype(
    [
        ("ready", "<i8"),
        ("requests", "<i8"),  # reports and inflated batches handled
        ("ranges", "<i8"),  # discards after adjacent blocks were joined
        ("claimed_bytes", "<i8"),  # what they said
        ("returned_bytes", "<i8"),  # what was resident just before its discard
        ("refaulted_bytes", "<i8"),  # returned, and touched again; counted when the run ends
        ("bad_elements", "<i8"),
        ("broken", "<i8"),
        ("discard_ns", "<i8"),
        ("balloon_bytes", "<i8"),  # by the device's own record, when the run ends
        ("inflated_returned_bytes", "<i8"),  # of `returned_bytes`, by pages that were inflated
        ("targets", "<i8"),  # how often the balloon's target was changed
        ("wishes_cut", "<i8"),  # by a manager that asked for what cannot be
        ("guest_statistics", "<i8"),  # how often the guest sent its figures
        ("discards", "<i8"),  # of `ranges`, those that held any memory (accounted RAM only)
        ("huge_pages", "<i8"),  # given back whole (accounted RAM only)
        ("swapped_out_pages", "<i8"),  # written to the swap
        ("swap_dropped_pages", "<i8"),  # discarded there: nobody wanted them back
        ("swap_full", "<i8"),  # how often the host was over its limit and found no room for more
    ],
    align=True,
)
