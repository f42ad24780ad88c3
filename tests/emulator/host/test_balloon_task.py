"""The host's manager task: it sets targets, cuts wishes, and ends the run for nonsense."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from devices.balloon.features import feature_bits
from emulator.errors import RunFailed
from emulator.host.balloon_task import manage_balloon
from emulator.host.layout import HOST
from emulator.host.managers.manager import Sight
from tests.devices.balloon.machines import HIGH_PAGES, LOW_PAGES, BalloonMachine, numbers

PAGE = 4096
MEMORY = (LOW_PAGES + HIGH_PAGES) * PAGE


@dataclass(frozen=True)
class Deciding:
    """A manager that does as it is told."""

    decision: Callable[[Sight], Any]
    name: ClassVar[str] = "mine"

    def decide(self, seen: Sight) -> Any:
        return self.decision(seen)


async def managed(
    machine: BalloonMachine, decision: Callable[[Sight], Any], for_s: float = 10.0
) -> Any:
    """HOST after a manager has been at work for so long, once a second."""
    account = np.zeros(1, HOST)
    with trio.move_on_after(for_s):
        await manage_balloon(
            machine.device, Deciding(decision), account, memory_bytes=MEMORY, every_s=1.0
        )
    return account[0]


async def test_a_decision_becomes_the_target_and_the_guest_is_told_once(
    autojump_clock: MockClock,
) -> None:
    machine = BalloonMachine()
    account = await managed(machine, lambda seen: MEMORY - (20 if seen.now_s > 4.5 else 7) * PAGE)
    assert machine.config.words[0]["num_pages"] == 20
    assert (account["targets"], machine.changes) == (2, 2)


async def test_it_sees_the_balloon_and_the_guests_figures(autojump_clock: MockClock) -> None:
    machine = BalloonMachine()
    machine.send("inflate", numbers(1, 2, 3))
    machine.serve("inflate")
    machine.stats().add({"available_bytes": 77})
    machine.drivers["stats"].publish()
    machine.serve("stats")
    sights: list[Sight] = []
    await managed(machine, sights.append, 1.5)
    assert [seen.now_s for seen in sights] == [0, 1]
    assert sights[0].kept_bytes == MEMORY - 3 * PAGE
    assert sights[0].guest == {"available_bytes": 77}


@pytest.mark.parametrize(("wish", "pages"), [(-1, 96), (MEMORY + 1, 0), (1 << 80, 0)])
async def test_a_wish_beyond_what_can_be_is_cut_and_counted(
    wish: int, pages: int, autojump_clock: MockClock
) -> None:
    machine = BalloonMachine()
    account = await managed(machine, lambda seen: wish, 0.5)
    assert machine.config.words[0]["num_pages"] == pages
    assert account["wishes_cut"] == 1


@dataclass(frozen=True)
class Hinting(Deciding):
    """Says of page cache what it is given for each second."""

    answers: tuple[Any, ...] = ()

    def reclaim_cache_first(self, seen: Sight) -> Any:
        return self.answers[round(seen.now_s)]


async def test_a_manager_says_whether_page_cache_is_to_be_reclaimed_first(
    autojump_clock: MockClock,
) -> None:
    machine = BalloonMachine(feature_bits(["stats_vq", "balloon_hint"]))
    seen: list[int] = []

    def decide(sight: Sight) -> None:
        seen.append(int(machine.config.words[0]["reclaim_cache_first"]))

    manager = Hinting(decide, answers=(None, False, None, True, True, False))
    with trio.move_on_after(5.5):
        await manage_balloon(
            machine.device,
            manager,
            np.zeros(1, HOST),
            memory_bytes=MEMORY,
            every_s=1.0,
            cache_first=True,
        )
    assert seen == [1, 0, 0, 1, 1, 0]
    assert machine.changes == 4  # The driver is told of changes only.


async def test_without_the_feature_nobody_is_asked(autojump_clock: MockClock) -> None:
    machine = BalloonMachine()
    with trio.move_on_after(0.5):
        await manage_balloon(
            machine.device,
            Hinting(lambda seen: None),
            np.zeros(1, HOST),
            memory_bytes=MEMORY,
            every_s=1.0,
        )
    assert machine.changes == 0


async def test_nonsense_about_page_cache_ends_the_run_with_one_line() -> None:
    machine = BalloonMachine(feature_bits(["stats_vq", "balloon_hint"]))
    manager = Hinting(lambda seen: None, answers=("yes",))
    with pytest.raises(RunFailed, match=r"'mine' answered 'yes' to reclaim_cache_first; True, Fa"):
        await manage_balloon(
            machine.device,
            manager,
            np.zeros(1, HOST),
            memory_bytes=MEMORY,
            every_s=1.0,
            cache_first=False,
        )


@pytest.mark.parametrize("nonsense", ["512MiB", 0.5, True, [1]])
async def test_nonsense_ends_the_run_with_one_line(nonsense: Any) -> None:
    with pytest.raises(RunFailed, match=r"the balloon manager 'mine' decided on .*a number of byt"):
        await managed(BalloonMachine(), lambda seen: nonsense)


async def test_a_manager_that_fails_ends_the_run_with_one_line() -> None:
    with pytest.raises(RunFailed, match=r"^the balloon manager 'mine' failed: KeyError: 'free'$"):
        await managed(BalloonMachine(), lambda seen: seen.guest["free"])
