"""A kernel that is called with constants of every kind, for tests of what is compiled for them."""

from typing import Any

from devices.memory.jit import kernel


@kernel(inner=True)
def chosen(words: Any, at: int, twice: bool) -> int:
    """A word, or twice that."""
    return words[at] * 2 if twice else words[at]


@kernel
def sums(words: Any, at: int) -> int:
    """Calls it five times."""
    found = chosen(words, 0, False) + chosen(words, 0, True) + chosen(words, 1, False)
    return found + chosen(words, at, at == 0) + chosen(words, at=2, twice=True)
