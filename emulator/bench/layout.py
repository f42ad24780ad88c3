"""What the processes and threads of one benchmark share."""

from typing import Final

import numpy as np

MEETING: Final = np.dtype(  # A cache line to itself: who has come, whose turn it is.
    {"names": ["arrived", "turn"], "formats": ["<u4", "<u4"], "offsets": [0, 64], "itemsize": 128},
    align=True,
)

LOOKS_A_CLOCK: Final = 4096  # Whoever waits looks at the clock once in so many looks at the word.
