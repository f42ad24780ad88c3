"""The fuzzer, a bounded number of episodes from a fixed seed."""

from tests.devices.vhost_user.fuzz import fuzz


async def test_from_a_fixed_seed() -> None:
    seen = await fuzz(1, episodes=300)
    assert seen["episodes"] == 300
    assert seen["left"] > 50 and seen["hung up"] > 50  # It gets everywhere: far, and stuck.
