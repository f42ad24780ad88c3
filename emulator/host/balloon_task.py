"""The host's side of a balloon: a manager decides, the device passes it on to the guest."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import trio

from devices.balloon.device import BalloonDevice
from devices.balloon.layout import BALLOON_PAGE_SIZE, STATS
from emulator.errors import RunFailed
from emulator.host.managers.manager import HostSight, Manager, Sight


async def manage_balloon(
    device: BalloonDevice,
    manager: Manager,
    account: npt.NDArray[Any],
    *,
    memory_bytes: int,
    every_s: float,
    host: Callable[[], HostSight] | None = None,
    cache_first: bool | None = None,
) -> None:
    """Let `manager` decide every so often, for ever; `account`: HOST[1].

    host:         how the host stands now;  None: its memory is not said
    cache_first:  whether the guest shall reclaim page cache first, until the manager says
                  otherwise;  None: its driver does not know of that

    A wish beyond what can be is cut to it, and counted; one that is no number ends the run.
    """
    began_s = trio.current_time()
    count = 0
    if cache_first:
        device.set_reclaim_cache_first(cache_first)
    while True:
        seen = Sight(
            now_s=trio.current_time() - began_s,
            memory_bytes=memory_bytes,
            balloon_bytes=device.balloon_bytes,
            guest=device.statistics(STATS).latest,
            host=None if host is None else host(),
        )
        if cache_first is not None:
            first = _cache_first(manager, seen)
            if first is not None and first != device.config.words[0]["reclaim_cache_first"]:
                device.set_reclaim_cache_first(first)
        wanted = _decision(manager, seen)
        if wanted is not None:
            kept = min(max(wanted, 0), memory_bytes)
            account[0]["wishes_cut"] += kept != wanted
            pages = (memory_bytes - kept) // BALLOON_PAGE_SIZE
            if pages != int(device.config.words[0]["num_pages"]):
                device.set_target(pages)
                account[0]["targets"] += 1
        count += 1
        await trio.sleep_until(began_s + count * every_s)


def _asked(manager: Manager, question: Callable[[Sight], Any], seen: Sight) -> Any:
    """The manager's answer; RunFailed, in one line, if it fails."""
    try:
        return question(seen)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise RunFailed(f"the balloon manager {manager.name!r} failed: {said}") from error


def _cache_first(manager: Manager, seen: Sight) -> bool | None:
    """What it says of page cache, if it says anything; RunFailed as for `_decision`."""
    question = getattr(manager, "reclaim_cache_first", None)
    first = None if question is None else _asked(manager, question, seen)
    if first is not None and not isinstance(first, bool):
        raise RunFailed(
            f"the balloon manager {manager.name!r} answered {first!r} to reclaim_cache_first; "
            f"True, False or None would work"
        )
    return first


def _decision(manager: Manager, seen: Sight) -> int | None:
    """RunFailed, in one line, if the manager does not decide."""
    wanted = _asked(manager, manager.decide, seen)
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool)):
        raise RunFailed(
            f"the balloon manager {manager.name!r} decided on {wanted!r}; a number of bytes, or "
            f"None, would work"
        )
    return wanted
