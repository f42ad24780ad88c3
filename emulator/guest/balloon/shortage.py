"""A vCPU that is out of memory has the balloon give some back (Linux: out_of_memory's notifiers).

It asks the guest's kernel and waits: pages are not free before the host knows.
"""

from typing import Any, Final

import numpy.typing as npt
import trio

from devices.virtio.notifier import Notifier

_WAIT_S_MAX: Final = 10.0  # For the host; after that the allocation fails, as without a balloon.


class OutOfMemory:
    """What vCPU `cpu` does about it.

    state:      BALLOON_STATE[1]
    shortages:  SHORTAGE[nr_cpus]
    short:      wakes the guest's kernel
    relief:     is how that wakes this vCPU
    """

    def __init__(
        self,
        state: npt.NDArray[Any],
        shortages: npt.NDArray[Any],
        cpu: int,
        short: Notifier,
        relief: Notifier,
    ) -> None:
        self._state = state[0]
        self._shortage = shortages[cpu]
        self._short = short
        self._relief = relief

    async def notify(self) -> bool:
        """Have pages given back; False: there are none, or nobody may take them.

        True says that there were: others may have taken them meanwhile.
        """
        if not self._state["deflate_on_oom"] or not self._state["pages"]:
            return False
        asked = int(self._shortage["asked"]) + 1
        self._shortage["asked"] = asked
        self._short.notify()
        began_s = trio.current_time()
        with trio.move_on_after(_WAIT_S_MAX):
            while self._shortage["answered"] != asked:
                await self._relief.wait_notified()
        self._shortage["waited_ns"] += round((trio.current_time() - began_s) * 1e9)
        return bool(self._shortage["answered"] == asked)
