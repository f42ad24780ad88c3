from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.parameters import decode_parameters, encode_parameters
from emulator.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    size_bytes: int
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeezer:
    order: int = 9
    delay_s: float = 2.0
    poll_ms: int = 100
    pace_bytes_per_s: int | None = None
    mode: Literal["eager", "lazy"] = "eager"
    delays_s: tuple[float, ...] = ()
    steps: tuple[Step, ...] = ()
    log: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 10:
            raise ValueError(f"order: {self.order} will not do; use 0 to 10")
        if self.delay_s > 60:
            raise ValueError("a delay above a minute\nis not supported")


class Hog(msgspec.Struct, frozen=True, kw_only=True):
    fraction: float
    idle_s: float = 10.0


def test_units_are_read_under_the_key_without_the_unit() -> None:
    table = {
        "delay": "250ms",
        "poll": "2s",
        "pace": "200MiB/s",
        "mode": "lazy",
        "delays": ["1s", 0.5],
        "steps": [{"size": "4MiB"}, {"size": 8192, "wait": "1ms"}],
        "log": "some/file",
    }
    assert decode_parameters(Squeezer, table, where="x") == Squeezer(
        delay_s=0.25,
        poll_ms=2000,
        pace_bytes_per_s=200 << 20,
        mode="lazy",
        delays_s=(1.0, 0.5),
        steps=(Step(size_bytes=4 << 20), Step(size_bytes=8192, wait_s=0.001)),
        log=Path("some/file"),
    )


def test_structs_are_read_as_dataclasses_are() -> None:
    assert decode_parameters(Hog, {"fraction": 1, "idle": "2s"}, where="x") == Hog(
        fraction=1.0, idle_s=2.0
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ordr": 9}, "f.toml: mechanism.ordr: unknown key; did you mean 'order'? allowed: delay,"),
        ({"delay_s": 2}, "f.toml: mechanism.delay_s: unknown key; did you mean 'delay'?"),
        ({"order": "nine"}, "f.toml: mechanism.order: 'nine' will not do: expected int, got str"),
        ({"order": True}, "f.toml: mechanism.order: True will not do: expected int, got bool"),
        ({"order": 11}, "f.toml: mechanism.order: 11 will not do; use 0 to 10"),
        ({"delay": "2m"}, "f.toml: mechanism.delay: '2m' is not a time: write it like"),
        ({"delay": "2min"}, "f.toml: mechanism: a delay above a minute is not supported"),
        ({"poll": "1us"}, "f.toml: mechanism.poll: '1us' will not do: not a whole number of ms"),
        ({"mode": "fast"}, "f.toml: mechanism.mode: 'fast' will not do; use one of: eager, lazy"),
        ({"steps": {"size": 1}}, "f.toml: mechanism.steps: must be a list of tables"),
        ({"steps": [{}]}, "f.toml: mechanism.steps.0.size: missing"),
        ({"steps": [3]}, "f.toml: mechanism.steps.0: must be a table, not 3"),
        ({"log": 3}, "f.toml: mechanism.log: "),
    ],
)
def test_what_is_wrong_is_said_with_place_and_key(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decode_parameters(Squeezer, table, where="f.toml: mechanism")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_required_key_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"^f\.fraction: missing"):
        decode_parameters(Hog, {}, where="f")


@given(
    st.builds(
        Squeezer,
        order=st.integers(0, 10),
        delay_s=st.floats(0, 60),
        poll_ms=st.integers(0, 10**9),
        pace_bytes_per_s=st.none() | st.integers(0, 1 << 50),
        mode=st.sampled_from(["eager", "lazy"]),
        delays_s=st.lists(st.floats(0, 1e6)).map(tuple),
        steps=st.lists(st.builds(Step, size_bytes=st.integers(0, 1 << 40))).map(tuple),
        log=st.none() | st.just(Path("a/b")),
    )
)
def test_encoded_parameters_decode_to_the_same(squeezer: Squeezer) -> None:
    assert decode_parameters(Squeezer, encode_parameters(squeezer), where="x") == squeezer
