"""What a balloon manager is: parameters, and a decision that is a pure function of what it sees.

A manager is a frozen dataclass in a file of its own, named in the registry.  It neither reads a
clock nor remembers: the same sight gives the same decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the host sees of one guest.

    now_s:         since the run began
    memory_bytes:  the guest's memory without a balloon
    balloon_bytes: what the guest has given away by now
    guest:         its own figures as it last sent them, by the names of `layout.STATS_TAGS`;
                   empty until it has
    """

    now_s: float
    memory_bytes: int
    balloon_bytes: int = 0
    guest: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept_bytes(self) -> int:
        """What is left to the guest."""
        return self.memory_bytes - self.balloon_bytes


class Manager(Protocol):
    """A file in this folder."""

    name: ClassVar[str]

    def decide(self, seen: Sight) -> int | None:
        """How much memory the guest is to keep, bytes; None: leave it as it is.

        More than the guest has, or less than nothing, is taken as the nearest that can be.
        """
