"""How often something is looked at: every so often while there is news, then less and less."""

from emulator.serve.pace import Pace


def pauses_s(pace: Pace, *found: object) -> list[float]:
    seen = []
    for one in found:
        pace.looked(one)
        seen.append(pace.pause_s)
    return seen


def test_without_news_the_pauses_grow_to_the_longest_one() -> None:
    pace = Pace(1.0, 5.0)
    assert pace.pause_s == 1.0
    assert pauses_s(pace, "a", "a", "a", "a", "a") == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert pauses_s(pace, "b", "b") == [1.0, 2.0]


def test_what_is_expected_is_not_slept_through() -> None:
    pace = Pace(1.0, 5.0)
    pauses_s(pace, "a", "a", "a")
    pace.expect_news()
    assert pace.pause_s == 1.0
    assert pauses_s(pace, "a", "a") == [1.0, 2.0]


def test_one_without_a_longest_pause_stays_as_it_is() -> None:
    assert pauses_s(Pace(0.1), "a", "a", "a") == [0.1, 0.1, 0.1]
