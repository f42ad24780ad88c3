"""The oracle finds what it is there to find: memory that was discarded while it was in use."""

import pytest

from emulator.summary import is_sound
from tests.support.liar import Liar
from tests.support.runs import simulate, small


@pytest.mark.parametrize("ram", ["memfd", "accounted"])
@pytest.mark.parametrize("name", ["memhog", "churn"])
def test_a_discard_of_memory_in_use_is_a_violation(name: str, ram: str) -> None:
    run = simulate(small(name, f'guest.ram="{ram}"'), mechanism=Liar())
    found = run.summary.oracle.violations or 0
    assert 0 < found <= (run.summary.hinting.claimed_bytes or 0) // 4096
    assert not is_sound(run.summary, [])


def test_a_report_outside_of_the_guests_memory_is_dropped_and_counted() -> None:
    beyond = 64 << 20 >> 12  # The guest ends there.
    run = simulate(small("memhog"), mechanism=Liar(shift=beyond))
    assert run.host[0]["bad_elements"] > 0
    assert run.host[0]["returned_bytes"] == 0
    assert run.summary.oracle.violations == 0
