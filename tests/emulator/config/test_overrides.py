from typing import Any

import pytest

from emulator.config.overrides import apply_overrides
from emulator.errors import ConfigError


def overridden(document: dict[str, Any], *overrides: str) -> dict[str, Any]:
    apply_overrides(document, overrides)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1.5", 1.5),
        ("true", True),
        ('"8"', "8"),
        ("[1, 2]", [1, 2]),
        ("250ms", "250ms"),
        ("a=b", "a=b"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_a_value_is_toml_or_else_a_string(text: str, value: object) -> None:
    assert overridden({}, f"guest.x={text}") == {"guest": {"x": value}}


def test_numbers_pick_from_lists_and_append() -> None:
    document = {"expect": [{"metric": "a", "at_most": 1}]}
    overridden(document, "expect.0.at_most=2", "expect.1.metric=b")
    assert document == {"expect": [{"metric": "a", "at_most": 2}, {"metric": "b"}]}
    assert overridden({}, "expect.0.metric=a") == {"expect": [{"metric": "a"}]}


def test_another_mechanism_drops_the_parameters_of_the_old_one() -> None:
    document = {"mechanism": {"name": "page_reporting", "order": 9}, "workload": {"kind": "a"}}
    overridden(document, "mechanism.period=1s", "mechanism.name=balloon")
    assert document["mechanism"] == {"name": "balloon", "period": "1s"}


def test_another_balloon_manager_drops_the_parameters_of_the_old_one() -> None:
    manager = {"name": "wave", "period": "1s"}
    document: dict[str, Any] = {"balloon": {"every": "2s", "manager": manager}}
    overridden(document, "balloon.manager.low=0.1", "balloon.manager.name=band")
    assert document["balloon"] == {"every": "2s", "manager": {"name": "band", "low": 0.1}}
    assert overridden({}, "balloon.manager.name=none") == {"balloon": {"manager": {"name": "none"}}}


def test_the_same_mechanism_keeps_them() -> None:
    document = {"mechanism": {"name": "page_reporting", "order": 9}}
    overridden(document, "mechanism.name=page_reporting")
    assert document["mechanism"] == {"name": "page_reporting", "order": 9}


def test_the_last_one_holds_and_the_keys_are_told() -> None:
    document: dict[str, Any] = {}
    keys = apply_overrides(document, ["run.seed=1", "run.seed=2"])
    assert document == {"run": {"seed": 2}}
    assert keys == ["run.seed", "run.seed"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guest.vcpus", "--set guest.vcpus: write it as KEY=VALUE"),
        ("=8", "--set =8: write it as KEY=VALUE"),
        ("guest..x=8", "--set guest..x=8: write it as KEY=VALUE"),
        ("question.x=1", "--set question.x: question is a value and has no keys"),
        ("expect.one.x=1", "--set expect.one.x: expect is a list of 0; use a number from 0 to 0"),
        ("expect.7.x=1", "--set expect.7.x: expect is a list of 0; use a number from 0 to 0"),
    ],
)
def test_what_cannot_be_set_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        overridden({"question": "why?", "expect": []}, override)
    assert str(raised.value).startswith(message)
