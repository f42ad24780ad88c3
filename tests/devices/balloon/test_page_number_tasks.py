"""The tasks of both halves together: pages told, figures asked for, resets in between."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from devices.balloon.device_task import poll_statistics, serve_queue
from devices.balloon.layout import PFN
from devices.balloon.page_number_task import HostTeller
from devices.balloon.stats_task import answer_statistics
from devices.virtio.errors import DeviceError
from devices.virtio.notifier import LocalNotifier
from tests.devices.balloon.machines import ALL_FEATURES, BalloonMachine

PAGE = 4096


class Served:
    """A machine, notifiers for one of its queues, and what was discarded."""

    def __init__(self, name: str, features: int = ALL_FEATURES) -> None:
        self.machine = BalloonMachine(features)
        self.name = name
        self.kick, self.call = LocalNotifier(), LocalNotifier()
        self.discarded: list[Any] = []
        self.discard_s = 0.0

    async def discard(self, ranges: npt.NDArray[Any]) -> None:
        await trio.sleep(self.discard_s)
        self.discarded += ranges.tolist()

    async def serve(self) -> None:
        device = self.machine.device
        await serve_queue(device, self.name, kick=self.kick, call=self.call, discard=self.discard)

    def teller(self) -> HostTeller:
        driver = self.machine.page_numbers(self.name)
        return HostTeller(driver, kick=self.kick, call=self.call)


@pytest.mark.parametrize("features", [0, ALL_FEATURES])
async def test_the_host_is_told_after_the_pages_were_discarded(
    features: int, autojump_clock: MockClock
) -> None:
    served = Served("inflate", features)
    served.discard_s = 3
    teller = served.teller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.serve)
        for first in range(4):
            assert await teller.tell(np.array([first], PFN))
            assert served.discarded[-1] == (0, first * PAGE, PAGE)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 12
    assert served.machine.device.balloon_bytes == 4 * PAGE


async def test_a_request_of_which_nothing_is_discarded_takes_its_time_too(
    autojump_clock: MockClock,
) -> None:
    served = Served("deflate")
    teller = served.teller()

    async def otherwise() -> None:
        await trio.sleep(2)

    async def serve() -> None:
        device, kick, call = served.machine.device, served.kick, served.call
        await serve_queue(
            device, "deflate", kick=kick, call=call, discard=served.discard, otherwise=otherwise
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        began_s = trio.current_time()
        assert await teller.tell(np.array([1], PFN))
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began_s + 2


async def test_a_reset_ends_a_shielded_tell_even_if_the_driver_restarts_at_once() -> None:
    served = Served("deflate")
    teller = served.teller()
    told = []

    async def tell() -> None:
        with trio.CancelScope(shield=True):
            told.append(await teller.tell(np.array([1], PFN)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        teller.reset()
        teller.driver.restart()
    assert told == [False]
    teller.reset()
    assert not await teller.tell(np.array([1], PFN))


async def test_a_device_that_lies_ends_the_tell_with_an_error() -> None:
    served = Served("inflate")
    teller = served.teller()
    views = served.machine.drivers["inflate"]._views
    views.used_ring[0] = (9, 0)
    views.used[1]["word"] = 1
    with pytest.raises(DeviceError):
        await teller.tell(np.array([1], PFN))


@pytest.mark.parametrize("features", [1 << 1, ALL_FEATURES])
async def test_figures_are_sent_whenever_they_are_asked_for(
    features: int, autojump_clock: MockClock
) -> None:
    served = Served("stats", features)
    kick, call = served.kick, served.call
    sent = 0

    def figures() -> dict[str, int]:
        nonlocal sent
        sent += 1
        return {"free_bytes": sent}

    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await answer_statistics(served.machine.stats(), figures, kick=kick, call=call)

        async def poll() -> None:
            await poll_statistics(served.machine.device, call=call, wait_due=lambda: trio.sleep(5))

        nursery.start_soon(answer)
        await wait_all_tasks_blocked()
        nursery.start_soon(served.serve)  # The first buffer was there before the device was.
        nursery.start_soon(poll)
        await trio.sleep(22)
        seen = served.machine.device.statistics("stats")
        assert (seen.latest, seen.updates) == ({"free_bytes": 5}, 5)
        assert seen.extra_buffers == 0
        nursery.cancel_scope.cancel()
    served.machine.device.validate()
