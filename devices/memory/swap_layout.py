"""What the host keeps of accounted RAM that it can swap out, beside the words of its pages.

    word        written by                                  read by           ordering
    marks       host (OLD, SWAPPED, and YOUNG on discard)   host              compare and swap
                whoever accesses the page (YOUNG)           the same          exchange
    traffic[i]  actor i of the guest                        host, supervisor  relaxed
      .answered host                                        actor i           relaxed
    control     host                                        actors            relaxed

`marks` and `traffic` are what a host learns from its page tables and its own fault handler: a guest
sees neither, but the vCPU that accesses a page is where the emulator notes it.

Invariant: resident == faulted + swapped_in - swapped_out - returned, in pages.
"""

from typing import Final

import numpy as np

PAGE_YOUNG: Final = 0  # Accessed since the host last looked, or nothing is behind it.
PAGE_OLD: Final = 1
PAGE_SWAPPED: Final = 2

SWAP_MARK: Final = np.dtype([("mark", "<u2")])  # One for each page of 4 KiB.

SWAP_TRAFFIC: Final = np.dtype(  # One record an actor, a cache line each.
    {
        # `asked`: how often for more memory; it goes on when the host has `answered` as often.
        "names": ["faulted_pages", "swapped_in_pages", "waited_ns", "asked", "answered"],
        "formats": ["<i8", "<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 8, 16, 24, 32],
        "itemsize": 64,
    },
    align=True,
)

# How many pages an actor may add before it asks.
SWAP_CONTROL: Final = np.dtype([("stock_pages", "<i8")])
