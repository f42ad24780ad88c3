"""What a guest's kernel says of its memory (/proc/zoneinfo, /proc/buddyinfo)."""

from collections.abc import Iterable
from dataclasses import dataclass

from emulator.errors import RunFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Of the one zone with memory in it, all in pages.

    spanned, managed:  all pages, and those that the allocator has; the rest is the kernel's image
    min, low, high:    watermarks
    free:              free blocks of each order, from 0 on
    """

    spanned: int
    managed: int
    min: int
    low: int
    high: int
    free: tuple[int, ...]

    @property
    def free_pages(self) -> int:
        """Pages that are free."""
        return sum(count << order for order, count in enumerate(self.free))


def parse_facts(words: Iterable[str]) -> MemoryFacts:
    """From what the guest printed: `min=708`, ..., `free=5,2,...`; RunFailed if not whole."""
    found = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        free = tuple(int(count) for count in found.pop("free").split(","))
        return MemoryFacts(free=free, **{name: int(value) for name, value in found.items()})
    except (KeyError, TypeError, ValueError):
        raise RunFailed(f"the guest did not say what memory it has: {found}") from None
