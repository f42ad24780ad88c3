"""Targets at given times, as an operator would type them."""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `at_s` on the guest is to keep `memory_bytes`."""

    at_s: float
    memory_bytes: int


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
        due = [step.memory_bytes for step in self.steps if step.at_s <= seen.now_s]
        return due[-1] if due else None
