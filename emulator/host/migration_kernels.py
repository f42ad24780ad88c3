"""The dirty log of a live migration, and what is copied from it.

Every write to a page by the oracle puts a word into it that no page ever held: so a page is dirty
if its word differs from `log`, the word that it held when its bit was last cleared.  `copied` is
the destination: the word that was sent last, 0 for a page that it does not have.
"""

from typing import Any

from devices.memory.jit import i64, kernel


@kernel
def count_dirty(words: Any, shift: int, log: Any) -> int:
    """Dirty pages, now."""
    dirty = i64(0)
    for page in range(len(log)):
        dirty += i64(words[page << shift] != log[page])
    return dirty


@kernel
def send_dirty(
    words: Any, shift: int, log: Any, copied: Any, first: int, budget: int
) -> tuple[int, int, int]:
    """Copy dirty pages from `first` on, at most `budget` that have content, and clear their bits.

    Returns (the page to go on with, pages with content, pages without).
    """
    sent = i64(0)
    empty = i64(0)
    page = i64(first)
    while page < len(log) and sent < budget:
        word = words[page << shift]
        if word != log[page]:
            log[page] = word
            copied[page] = word
            if word == 0:
                empty += 1
            else:
                sent += 1
        page += 1
    return page, sent, empty


@kernel
def clear_dirty(words: Any, shift: int, log: Any, first: int, count: int) -> int:
    """Clear the bits of a range without copying it; how many were set."""
    skipped = i64(0)
    for page in range(first, first + count):
        word = words[page << shift]
        skipped += i64(word != log[page])
        log[page] = word
    return skipped


@kernel
def resume_with(words: Any, shift: int, copied: Any, missing: Any) -> None:
    """Make memory what the destination has.  `missing` (u1 a page): what it does not have."""
    for page in range(len(copied)):
        word = copied[page]
        missing[page] = i64(word == 0 and words[page << shift] != 0)
        if word != 0 and words[page << shift] != word:
            words[page << shift] = word
