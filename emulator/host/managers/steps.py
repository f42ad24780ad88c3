"""Targets at given times, as an operator would type them."""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `at_s` on the guest is to keep `memory_bytes`, and to take page cache first or not."""

    at_s: float
    memory_bytes: int
    cache_first: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """`steps`: in the order of time."""

    name: ClassVar[str] = "steps"
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        times = [step.at_s for step in self.steps]
        if not times or times != sorted(set(times)):
            raise ValueError(f"steps: times must ascend and be at least one, not {times}")

    def decide(self, seen: Sight) -> int | None:
        """The memory of the last step whose time has come; None before the first."""
        due = self._due(seen)
        return due[-1].memory_bytes if due else None

    def reclaim_cache_first(self, seen: Sight) -> bool | None:
        """What that step says of it."""
        due = self._due(seen)
        return due[-1].cache_first if due else None

    def _due(self, seen: Sight) -> list[Step]:
        return [step for step in self.steps if step.at_s <= seen.now_s]
