"""The guest's balloon in shared memory.

    balloon      BALLOON_STATE[1]     written by the guest's kernel; vCPUs and supervisor read
    shortages    SHORTAGE[nr_cpus]    `answered` by the guest's kernel, the rest by that vCPU

All words are relaxed: each has one writer, and who acts on one looks at the page array afterwards,
under its locks.
"""

from typing import Final

import numpy as np

NOTHING: Final = -1  # BALLOON_STATE.top of an empty balloon

# How many pages an OOM notification gives back (VIRTIO_BALLOON_OOM_NR_PAGES).
OOM_PAGES: Final = 256

BALLOON_STATE: Final = np.dtype(
    [
        ("top", "<i8"),  # page frame that entered last, or NOTHING; the next is its PAGE.next
        ("pages", "<i8"),  # in the balloon (vb->num_pages)
        ("between", "<i8"),  # allocated and not in it yet, or out of it and not free yet
        ("target_pages", "<i8"),  # what the host asked for when it was last looked at
        ("told_pages", "<i8"),  # `actual` as last written
        ("deflate_on_oom", "<i8"),
        ("inflated_pages", "<i8"),  # since the start: told to the host, and acknowledged
        ("deflated_pages", "<i8"),
        ("shortfalls", "<i8"),  # batches that the guest could not fill; each waited 200 ms
        ("reached", "<i8"),  # how often a target was reached after it had been changed
        ("follow_ns_max", "<i8"),  # the longest time that took
        ("oom_calls", "<i8"),  # OOM notifications, and the pages that they gave back
        ("oom_pages", "<i8"),
        ("hinted_fills", "<i8"),  # batches for which page cache was to be reclaimed first
    ],
    align=True,
)

SHORTAGE: Final = np.dtype(
    {
        "names": ["asked", "answered", "waited_ns"],
        "formats": ["<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16],
        "itemsize": 64,
    },
    align=True,
)
