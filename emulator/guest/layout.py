"""What vCPUs write down of their workload, in shared memory."""

from typing import Final

import numpy as np

PHASES_MAX: Final = 64  # of one vCPU

PHASE: Final = np.dtype(
    [("used", "<i8"), ("began_ns", "<i8"), ("operations", "<i8"), ("name", "S24")], align=True
)
