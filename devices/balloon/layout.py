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
# B. Singh, "[RFC][PATCH 2/3] Linux/Guest cooperative unmapped page cache control" (October 2010):
# never merged, and the bit became DEFLATE_ON_OOM.  Who accepts it must know which of them is meant.
F_BALLOON_HINT: Final = 2

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

# Page numbers in one buffer of the inflate and deflate queues, as Linux sends at most
# (VIRTIO_BALLOON_ARRAY_PFNS_MAX); a device takes no more of a buffer.
PFN: Final = np.dtype("<u4")
PFNS_MAX: Final = 256

# The third word has two names: with BALLOON_HINT the driver finds there whether it shall reclaim
# page cache first; the specification gave the place to free page hints.
BALLOON_CONFIG: Final = np.dtype(  # 5.5.4; little-endian always
    {
        "names": [
            "num_pages",  # the device's wish: pages of 4 KiB in the balloon
            "actual",  # written by the driver: pages that are in it
            "free_page_hint_cmd_id",
            "reclaim_cache_first",
            "poison_val",  # written by the driver, before DRIVER_OK
        ],
        "formats": ["<u4"] * 5,
        "offsets": [0, 4, 8, 8, 12],
        "itemsize": 16,
    }
)
assert BALLOON_CONFIG.itemsize == 16

# The fields that the driver may write (5.5.4); the others are the device's.
DRIVER_FIELDS: Final = ("actual", "poison_val")

# An entry of a statistics buffer (5.5.6.4).  The specification's text asks for buffers of whole 6
# bytes; entries have 10, and drivers send whole entries.
STATS_ENTRY: Final = np.dtype([("tag", "<u2"), ("val", "<u8")])
assert STATS_ENTRY.itemsize == 10
STATS_BYTES_MAX: Final = 4096

# Tags, with our names and units: 0 to 9 of the specification, 10 to 15 of Linux 6.12.
STATS_TAGS: Final = {
    0: "swap_in_bytes",
    1: "swap_out_bytes",
    2: "major_faults",
    3: "minor_faults",
    4: "free_bytes",
    5: "total_bytes",
    6: "available_bytes",
    7: "caches_bytes",
    8: "hugetlb_allocations",
    9: "hugetlb_failures",
    10: "oom_kills",
    11: "alloc_stalls",
    12: "async_scans",
    13: "direct_scans",
    14: "async_reclaims",
    15: "direct_reclaims",
}

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

# Whole pages of one region that page numbers of 32 bits can name, as kernels take them.
PAGE_SPAN: Final = np.dtype(
    [
        ("first_pfn", "<i8"),
        ("pages", "<i8"),
        ("offset", "<i8"),  # bytes from the beginning of the region to that first page
        ("base", "<i8"),  # index of that page in the record of all pages
    ]
)

# What became of the page numbers of one buffer.
PAGES_TAKEN: Final = np.dtype(
    [
        ("ranges", "<i8"),
        ("accepted", "<i8"),  # pages that changed between the guest and the balloon
        ("unchanged", "<i8"),  # pages that were already where they were to go
        ("outside", "<i8"),  # numbers of no page
        ("duplicates", "<i8"),  # again in the same call
    ]
)
