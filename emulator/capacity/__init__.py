"""How many guests fit a host, from the footprints that were recorded of such guests.

footprints.py    recorded curves on one grid of time
resample.py      hosts full of guests drawn from them, and how often these exceed the host
figures.py       what of it stands in the summary of a run
recorded.py      the curves that run folders, comparisons and tables of one's own hold
"""
