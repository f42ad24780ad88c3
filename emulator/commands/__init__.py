"""The commands of `python -m emulator`.

They read what the user gave, call the part that does the work, print, and set the exit code.
Nothing that imports numba, trio or matplotlib is imported before it is needed: `--help`, `list`
and a typing error answer at once.
"""
