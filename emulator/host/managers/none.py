"""No manager: the target stays as it is, at no balloon."""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class NoManager:
    """Has no parameters."""

    name: ClassVar[str] = "none"

    def decide(self, seen: Sight) -> None:
        """Never anything."""
        return
