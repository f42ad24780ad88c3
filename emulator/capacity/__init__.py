"""How many guests fit a host, from the footprints that were recorded of such guests.

footprints.py    recorded curves on one grid of time
resample.py      hosts full of guests drawn from them, and how often these exceed the host
recorded.py      the curves that run folders, comparisons and tables of one's own hold
"""
