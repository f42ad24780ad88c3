"""Mechanisms held against each other on one workload: which differences are real?

    candidate.py     what is compared, as `--mechanism` names it
    design.py        in which order, with which seeds
    process.py       one run in a process of its own
    run.py           all runs, each in its own run folder
    statistics.py    paired differences, their intervals, and when one counts
    figures.py       what is compared, and how fine it can be told apart
    comparison.py    everything together: one document

Only `process.py` and `run.py` do anything; the rest computes.
"""
