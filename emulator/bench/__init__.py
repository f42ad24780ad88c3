"""How fast each part is on this machine: series of numbers, each with its target.

series.py     which series there are, what they are held against, and where they are measured
figures.py    measured values -> median, spread, met or not; `run_bench`
kernels.py    compiled loops that only a benchmark needs

The machine that this was built on is noisy: two CPUs that a host moves between near and far, and
memory that its host takes back.  So a figure is the median of several values beside their range;
what can be a ratio is one, of runs taken in turns; and the cache-line round trip between two CPUs,
which tells near from far, is shown for the time before and after.
"""

from emulator.bench.figures import run_bench

__all__ = ["run_bench"]
