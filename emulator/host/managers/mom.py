"""The memory overcommit manager's rules: shrink guests where the host is short, else grow them.

    host free < pressure    shrink: by `change` at most, to what the guest uses and a part of what
                            it has: `guest_free` in the proportion of what the host has free to
                            `pressure`; less than nothing, so that the guest must swap, where the
                            host has no more than `critical`
    otherwise               grow, likewise, until it has `guest_free` besides what it uses
    changes of no more than `change_min` are not made

Fractions: of the host's memory (`pressure`, `critical`), else of what the guest has.  The rules are
those of MOM's `doc/balloon.rules` in two variants, which differ in growing:

    "plain"    `guest_free` of the guest's whole memory comes last, and may go beyond it (the wish
               is then cut)
    "ovirt"    `guest_free` of what it has; never below `least`, and the whole memory comes last

Its guest's statistics and the host's memory must be known.  MOM runs its rules every 10 s on
averages of ten samples, 5 s apart; here a decision is about the latest figures only.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Mom:
    """Parameters; the defaults are the source's constants."""

    name: ClassVar[str] = "mom"
    needs_host_memory: ClassVar[bool] = True
    variant: Literal["plain", "ovirt"] = "plain"
    pressure: float = 0.20
    critical: float = 0.05
    guest_free: float = 0.20
    change: float = 0.05
    change_min: float = 0.0025
    least_bytes: int = 0  # "ovirt" only.

    def __post_init__(self) -> None:
        for name in ("pressure", "critical", "guest_free", "change", "change_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not from 0 to 1")
        if not self.critical < self.pressure:
            raise ValueError(f"critical: {self.critical} must be below pressure, {self.pressure}")
        if self.least_bytes < 0:
            raise ValueError("least: must not be below 0")

    def decide(self, seen: Sight) -> int | None:
        """As above."""
        unused = seen.guest.get("free_bytes")
        if unused is None or seen.host is None:
            return None
        has, used = seen.kept_bytes, seen.kept_bytes - unused
        host_free = seen.host.free_bytes / seen.host.memory_bytes
        if host_free < self.pressure:
            wanted = self._shrunk(has, used, host_free)
            applies = wanted <= has
        else:
            wanted = self._grown(has, used, seen.memory_bytes)
            applies = has < seen.memory_bytes
        if not applies or abs(wanted - has) <= self.change_min * has:
            return None
        return round(wanted)

    def _shrunk(self, has: int, used: int, host_free: float) -> float:
        if host_free <= self.critical:
            free = host_free - self.critical
        else:
            free = self.guest_free * host_free / self.pressure
        return max(has * (1 - self.change), self._floor(used + free * has))

    def _grown(self, has: int, used: int, memory: int) -> float:
        more = has * (1 + self.change)
        if self.variant == "ovirt":
            return min(max(more, self._floor(used + self.guest_free * has)), memory)
        return max(min(more, memory), used + self.guest_free * memory)

    def _floor(self, floor: float) -> float:
        return max(floor, self.least_bytes) if self.variant == "ovirt" else floor
