"""One access to accounted RAM that the host can swap out."""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.swap_kernels import note_access


@kernel
def access(ram: Any, actor: int, page: int) -> None:
    """Write a word to a page."""
    faulted = i64(ram.words[page] == 0)
    ram.words[page] = (page << 32) | 512
    note_access(ram, actor, page, 1, faulted)
