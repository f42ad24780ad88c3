"""Recorded kernel page-allocation traces: read as text, turned into programs for replay.

reader.py    a file -> `Trace`: its events and what was found besides them
compile.py   a `Trace` -> `ReplayProgram`: blocks numbered by slots, for mapped page frames
"""
