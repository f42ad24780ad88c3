"""What a guest prints of its memory is read whole, or refused."""

import pytest

from emulator.errors import RunFailed
from emulator.uml.memory_facts import parse_facts

WORDS = ["min=708", "low=885", "high=1062", "spanned=131072", "managed=126090", "free=3,0,2"]


def test_facts_are_read() -> None:
    facts = parse_facts(WORDS)
    assert (facts.min, facts.low, facts.high) == (708, 885, 1062)
    assert (facts.spanned, facts.managed) == (131072, 126090)
    assert facts.free_pages == 3 * 1 + 2 * 4


@pytest.mark.parametrize("bad", [WORDS[1:], [*WORDS, "more=1"], [*WORDS[:-1], "free=a"], []])
def test_what_is_not_whole_is_refused(bad: list[str]) -> None:
    with pytest.raises(RunFailed, match="did not say what memory it has"):
        parse_facts(bad)
