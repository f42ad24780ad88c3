"""Managers as pure functions, against their rules' own arithmetic."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.errors import ConfigError
from emulator.host.managers.band import Band
from emulator.host.managers.manager import Manager, Sight
from emulator.host.managers.none import NoManager
from emulator.host.managers.registry import MANAGERS, load_manager
from emulator.host.managers.steps import Step, Steps
from emulator.host.managers.wave import Wave

MIB = 1 << 20


def sight(now_s: float = 0.0, available_mib: int | None = None, balloon_mib: int = 0) -> Sight:
    guest = {} if available_mib is None else {"available_bytes": available_mib * MIB}
    return Sight(now_s=now_s, memory_bytes=1000 * MIB, balloon_bytes=balloon_mib * MIB, guest=guest)


def test_none_never_decides() -> None:
    manager: Manager = NoManager()
    assert manager.decide(sight(5, available_mib=900)) is None


def test_steps_hold_from_their_time_on() -> None:
    steps = Steps(steps=(Step(at_s=2, memory_bytes=300), Step(at_s=5, memory_bytes=900)))
    decided = [steps.decide(sight(at_s)) for at_s in (0, 1.99, 2, 4.9, 5, 500)]
    assert decided == [None, None, 300, 300, 900, 900]


def test_steps_also_say_whether_page_cache_goes_first() -> None:
    first = Step(at_s=2, memory_bytes=300, cache_first=True)
    steps = Steps(steps=(first, Step(at_s=5, memory_bytes=300)))
    assert [steps.reclaim_cache_first(sight(at_s)) for at_s in (0, 2, 5)] == [None, True, None]


@pytest.mark.parametrize("times", [(), (2.0, 2.0), (3.0, 1.0)])
def test_steps_out_of_order_are_rejected(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="times must ascend and be at least one"):
        Steps(steps=tuple(Step(at_s=at_s, memory_bytes=1) for at_s in times))


def test_a_wave_goes_down_and_up_evenly() -> None:
    wave = Wave(least_bytes=500, most_bytes=1500, period_s=40)
    decided = [wave.decide(sight(at_s)) for at_s in (0, 5, 10, 20, 30, 40, 50)]
    assert decided == [1500, 1250, 1000, 500, 1000, 1500, 1000]


@pytest.mark.parametrize(
    ("available_mib", "balloon_mib", "kept_mib"),
    [
        (50, 400, None),  # At either edge of the band, and within it.
        (100, 400, None),
        (150, 400, None),
        (151, 400, 549),  # 600 are kept; 51 above the middle of the band are taken.
        (49, 400, 651),
        (0, 400, 700),
        (900, 0, 750),  # A quarter of the memory at most.
        (800, 800, 100),  # A tenth is kept in any case.
        (40, 20, 1000),  # No more than there is.
        (None, 400, None),  # The guest has said nothing yet.
    ],
)
def test_a_band_is_kept(available_mib: int | None, balloon_mib: int, kept_mib: int | None) -> None:
    decided = Band().decide(sight(0, available_mib, balloon_mib))
    assert decided == (None if kept_mib is None else kept_mib * MIB)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_band_asks_for_what_can_be_and_moves_towards_its_middle(
    available_mib: int, balloon_mib: int
) -> None:
    seen = sight(0, available_mib, balloon_mib)
    kept = Band().decide(seen)
    if kept is None:
        assert 50 <= available_mib <= 150
        return
    assert 100 * MIB <= kept <= 1000 * MIB
    if available_mib < 50:
        assert seen.kept_bytes < kept or kept == 1000 * MIB or seen.kept_bytes < 100 * MIB
    elif seen.kept_bytes > 100 * MIB:
        assert kept < seen.kept_bytes


@pytest.mark.parametrize(
    ("cls", "parameters", "message"),
    [
        (Wave, {"least_bytes": 2, "most_bytes": 1}, "least: 2 is not between 0 and most"),
        (Wave, {"period_s": 0.0}, "period: must be above 0"),
        (Band, {"low": 0.5, "high": 0.5}, "must ascend within 0 and 1"),
        (Band, {"step": 0.0}, "step: must be above 0"),
        (Band, {"least": 2.0}, "least within 0 and 1"),
    ],
)
def test_impossible_parameters_are_rejected(
    cls: type, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**parameters)


@pytest.mark.parametrize("name", sorted(MANAGERS))
def test_every_manager_is_loaded_by_its_name(name: str) -> None:
    parameters = {"steps": [{"at": "1s", "memory": "4MiB"}]} if name == "steps" else {}
    assert load_manager(name, parameters, where="x").name == name


def test_an_unknown_manager_or_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match=r"x.name: unknown balloon manager 'wav'; did you mean"):
        load_manager("wav", {}, where="x")
    with pytest.raises(ConfigError, match=r"x.perod: unknown key; did you mean 'period'"):
        load_manager("wave", {"perod": "1s"}, where="x")
    with pytest.raises(ConfigError, match=r"x.steps.0.memory: missing"):
        load_manager("steps", {"steps": [{"at": "1s"}]}, where="x")
