import os
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from devices.virtio.notifier import EventfdNotifier, LocalNotifier

AnyNotifier = EventfdNotifier | LocalNotifier


@pytest.fixture(params=[EventfdNotifier, LocalNotifier])
def notifier(request: pytest.FixtureRequest) -> Iterator[AnyNotifier]:
    made: AnyNotifier = request.param()
    yield made
    if isinstance(made, EventfdNotifier) and made.fd >= 0:
        os.close(made.fd)


async def is_notified(notifier: AnyNotifier) -> bool:
    with trio.move_on_after(1):
        await notifier.wait_notified()
        return True
    return False


async def test_a_notification_before_the_wait_is_not_lost(
    notifier: AnyNotifier, autojump_clock: MockClock
) -> None:
    notifier.notify()
    assert await is_notified(notifier)
    assert not await is_notified(notifier)


async def test_several_notifications_are_seen_as_one(
    notifier: AnyNotifier, autojump_clock: MockClock
) -> None:
    notifier.notify()
    notifier.notify()
    assert await is_notified(notifier)
    assert not await is_notified(notifier)


async def test_a_waiting_task_is_woken(notifier: AnyNotifier, autojump_clock: MockClock) -> None:
    woken = []

    async def wait() -> None:
        await notifier.wait_notified()
        woken.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(5)
        notifier.notify()
    assert woken == [began + 5]


async def test_waiting_is_a_checkpoint_even_if_notified(notifier: AnyNotifier) -> None:
    notifier.notify()
    with trio.CancelScope() as scope:
        scope.cancel()
        await notifier.wait_notified()
    assert scope.cancelled_caught


async def test_what_comes_while_a_second_waiter_wakes_is_kept(autojump_clock: MockClock) -> None:
    notifier = LocalNotifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.wait_notified)
        nursery.start_soon(notifier.wait_notified)
        await wait_all_tasks_blocked()
        notifier.notify()
    notifier.notify()
    assert await is_notified(notifier)


async def test_a_descriptor_that_was_passed_on_wakes_the_other_side() -> None:
    ours = EventfdNotifier()
    theirs = EventfdNotifier(os.dup(ours.fd))
    theirs.notify()
    await ours.wait_notified()
    ours.close()
    theirs.close()


async def test_a_blocking_descriptor_is_made_non_blocking() -> None:
    notifier = EventfdNotifier(os.eventfd(0))
    assert not os.get_blocking(notifier.fd)
    notifier.close()


async def test_a_full_counter_does_not_block() -> None:
    notifier = EventfdNotifier()
    os.eventfd_write(notifier.fd, (1 << 64) - 2)
    notifier.notify()
    await notifier.wait_notified()
    notifier.close()


async def test_closing_wakes_the_waiting_task() -> None:
    notifier = EventfdNotifier()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await notifier.wait_notified()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        notifier.close()
    notifier.close()
    notifier.notify()
    with pytest.raises(trio.ClosedResourceError):
        await notifier.wait_notified()
