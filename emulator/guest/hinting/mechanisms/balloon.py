"""The classic balloon alone: the host asks for so much memory, the guest gives single pages.

virtio_balloon of Linux 6.6 (drivers/virtio/virtio_balloon.c), inflated and deflated to a target
that a balloon manager of the host sets (`[balloon]` in the scenario; `band` without one).  Nothing
is reported by itself.  The balloon is no part of a mechanism: with a `[balloon]` of its own, a
guest has it beside any of them, as every VMM offers.

Known flaws, visible when run: the host must choose a target; 256 pages a round trip, and single
pages break up what the host backs with huge ones; a guest that needs memory faster than the balloon
deflates fails allocations, or waits for the host at each 256 pages (deflate on OOM).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from devices.memory.region import Layout
from emulator.guest.hinting.cycle import Geometry
from emulator.guest.mm.hook_kernels import NoHooks
from emulator.guest.mm.views import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Balloon:
    """Has no parameters: what the balloon does is said in `[balloon]`."""

    name: ClassVar[str] = "balloon"
    balloon: ClassVar[bool] = True  # It has one, also where the scenario does not speak of it.

    def shared_arrays(self, geometry: Geometry) -> Layout:
        """None."""
        return {}

    def hooks(self, arrays: Mapping[str, Any]) -> NoHooks:
        """None."""
        return NoHooks()

    def start(self, mm: GuestMemory, actor: int) -> None:
        """Never reports."""
        return
