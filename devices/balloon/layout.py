"""The balloon device's features, queues and configuration (VIRTIO 1.3, section 5.5)."""

from typing import Final

import numpy as np

VIRTIO_ID_BALLOON: Final = 5

# Feature bits (5.5.3).
F_MUST_TELL_HOST: Final = 0
F_STATS_VQ: Final = 1
F_DEFLATE_ON_OOM: Final = 2
F_FREE_PAGE_HINT: Final = 3
F_PAGE_POISON: Final = 4
F_PAGE_REPORTING: Final = 5

# Queues (5.5.2), in the order of the specification, with the feature each exists by.
INFLATE: Final = "inflate"
DEFLATE: Final = "deflate"
STATS: Final = "stats"
FREE_PAGE: Final = "free_page"
REPORTING: Final = "reporting"
QUEUES: Final = (
    (INFLATE, None),
    (DEFLATE, None),
    (STATS, F_STATS_VQ),
    (FREE_PAGE, F_FREE_PAGE_HINT),
    (REPORTING, F_PAGE_REPORTING),
)

# Addresses are given in units of 4 KiB, whatever the guest's page size (5.5.6); a reported range
# that is not made of whole units is not discarded.
BALLOON_PAGE_SIZE: Final = 4096

# What Linux reports at most in one request (PAGE_REPORTING_CAPACITY, mm/page_reporting.h).
PAGE_REPORTING_CAPACITY: Final = 32

BALLOON_CONFIG: Final = np.dtype(  # 5.5.4; little-endian always
    [
        ("num_pages", "<u4"),  # the device's wish: pages of 4 KiB in the balloon
        ("actual", "<u4"),  # written by the driver: pages that are in it
        ("free_page_hint_cmd_id", "<u4"),
        ("poison_val", "<u4"),  # written by the driver, before DRIVER_OK
    ]
)
assert BALLOON_CONFIG.itemsize == 16

# Free page hints (5.5.6.5): what `free_page_hint_cmd_id` says besides ids, and the first id that
# QEMU gives; it wraps to this one.
HINT_STOP: Final = 0
HINT_DONE: Final = 1
HINT_ID_FIRST: Final = 0x8000_0000
HINT_ID_MAX: Final = 0xFFFF_FFFF
HINT_COMMAND_BYTES: Final = 4

# A range that the device discards: bytes of region `region` of the guest's address space.
DISCARD_RANGE: Final = np.dtype(
    [
        ("region", "<i8"),  # index into AddressSpace.regions
        ("offset", "<i8"),  # bytes from the beginning of the region
        ("length", "<i8"),  # bytes
    ]
)
