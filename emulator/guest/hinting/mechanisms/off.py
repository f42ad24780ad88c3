"""No reclaim at all: the baseline that every other mechanism is held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """Has no parameters."""

    name: ClassVar[str] = "off"

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """None."""
        return {}

    def hooks(self, arrays: Mapping[str, Any]) -> NoHooks:
        """None."""
        return NoHooks()

    def start(self, mm: GuestMemory, actor: int) -> None:
        """Never reports."""
        return
