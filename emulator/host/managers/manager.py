"""What a balloon manager is: parameters, and a decision that is a pure function of what it sees.

A manager is a frozen dataclass in a file of its own, named in the registry; a user's own is such a
file, too: `name = "./mine.py:Mine"`.  It neither reads a clock nor remembers: the same sight gives
the same decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSight:
    """What the host sees of itself.

    memory_bytes:  what it has for its guests, `host.memory`
    free_bytes:    what no guest has resident of that; 0 where they have more
    guests, index: how many guests there are, and which of them the decision is about
    """

    memory_bytes: int
    free_bytes: int
    guests: int = 1
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the host sees of one guest.

    now_s:         since the run began
    memory_bytes:  the guest's memory without a balloon
    balloon_bytes: what the guest has given away by now
    guest:         its own figures as it last sent them, by the names of `layout.STATS_TAGS`;
                   empty until it has
    host:          None where the host's memory is not said
    """

    now_s: float
    memory_bytes: int
    balloon_bytes: int = 0
    guest: Mapping[str, int] = field(default_factory=dict)
    host: HostSight | None = None

    @property
    def kept_bytes(self) -> int:
        """What is left to the guest."""
        return self.memory_bytes - self.balloon_bytes


class Manager(Protocol):
    """A file in this folder.

    One with a class attribute `needs_host_memory` is refused where `host.memory` is not said.  One
    with a method `reclaim_cache_first(seen) -> bool | None` also says, before each decision,
    whether a guest whose driver knows of that (`balloon_cache_first`) shall reclaim page cache
    first when it fills its balloon; None: leave it as it is.
    """

    name: ClassVar[str]

    def decide(self, seen: Sight) -> int | None:
        """How much memory the guest is to keep, bytes; None: leave it as it is.

        More than the guest has, or less than nothing, is taken as the nearest that can be.
        """
