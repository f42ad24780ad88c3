"""Set before anything is imported: tests compile kernels of their own, in a cache of their own.

What numba keeps on disk names the classes that it was compiled for.  Those of the tests' mechanisms
exist here only, so that a run outside of the tests must never come across them.
"""

import os
from pathlib import Path

import pytest

# A user's own mechanism, as far as the emulator can tell; named before the first kernel is loaded.
os.environ["EMULATOR_KERNELS"] = str(Path(__file__).parent / "support" / "liar.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
