"""Virtual time jumps to what is due next, of trio's own deadlines and of those who only sleep."""

import trio

from emulator.guest.virtual_time import VirtualTime


def run_in_virtual_time(*tasks: tuple[str, float, bool]) -> list[tuple[str, float]]:
    """(name, when, by trio) each: who woke up when."""
    clock = VirtualTime()
    woken = []

    async def sleeper(name: str, at_s: float, by_trio: bool) -> None:
        await (trio.sleep_until(at_s) if by_trio else clock.sleep_until(at_s))
        woken.append((name, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(sleeper, *task)

    trio.run(main, clock=clock)
    return woken


def test_whoever_is_due_first_wakes_first() -> None:
    woken = run_in_virtual_time(("a", 3, False), ("b", 2, True), ("c", 1, False), ("d", 3600, True))
    assert woken == [("c", 1), ("b", 2), ("a", 3), ("d", 3600)]


def test_those_who_are_due_together_wake_at_the_same_time() -> None:
    woken = run_in_virtual_time(("a", 5, False), ("b", 5, True), ("c", 5, False), ("d", -1, False))
    assert woken[0] == ("d", 0)
    assert sorted(woken[1:]) == [("a", 5), ("b", 5), ("c", 5)]


def test_a_sleep_can_be_cancelled_and_its_time_passes_unseen() -> None:
    clock = VirtualTime()

    async def main() -> None:
        with trio.move_on_after(2) as scope:
            await clock.sleep_until(10)
        assert scope.cancelled_caught
        assert trio.current_time() == 2
        await clock.sleep_until(20)
        assert trio.current_time() == 20

    trio.run(main, clock=clock)
