"""What `--mechanism` may say in a comparison."""

from pathlib import Path

import pytest

from emulator.compare.candidate import Candidate, read_candidates
from emulator.config.scenario import Scenario, decode_scenario
from emulator.errors import ConfigError

REGISTERED = ("off", "balloon", "page_reporting")


def scenario() -> Scenario:
    return decode_scenario(
        {
            "question": "Why?",
            "guest": {"memory": "64MiB", "vcpus": 1},
            "mechanism": {"name": "page_reporting", "order": 9, "delay": "2s"},
            "workload": {"kind": "memhog"},
        },
        name="small",
        source="small.toml",
    )


def read(*texts: str) -> list[Candidate]:
    return read_candidates(texts, scenario(), REGISTERED)


def second(text: str) -> Candidate:
    return read("off", text)[1]


def test_a_name_has_its_defaults_and_the_scenarios_own_what_that_says() -> None:
    off, own, other = read("off", "page_reporting", "balloon")
    assert (off.label, off.mechanism.name, off.mechanism.parameters) == ("off", "off", {})
    assert own.mechanism.parameters == {"order": 9, "delay": "2s"}
    assert other.mechanism.parameters == {}


@pytest.mark.parametrize(
    ("text", "label", "parameters"),
    [
        (
            "page_reporting(order=0,delay=100ms)",
            "page_reporting(order=0,delay=100ms)",
            {"order": 0, "delay": "100ms"},
        ),
        (
            "  page_reporting ( order = 0 , delay = 100ms ) ",
            "page_reporting(order=0,delay=100ms)",
            {"order": 0, "delay": "100ms"},
        ),
        (
            "page_reporting(capacity=512)",
            "page_reporting(capacity=512)",
            {"order": 9, "delay": "2s", "capacity": 512},
        ),
        ("page_reporting()", "page_reporting()", {"order": 9, "delay": "2s"}),
        (
            "balloon(only=[1, 2], x='a,b)')",
            "balloon(only=[1, 2],x='a,b)')",
            {"only": [1, 2], "x": "a,b)"},
        ),
        ('balloon(x="a\\",(b")', 'balloon(x="a\\",(b")', {"x": 'a",(b'}),
    ],
)
def test_parameters(text: str, label: str, parameters: dict[str, object]) -> None:
    found = second(text)
    assert found.label == label
    assert found.mechanism.parameters == parameters


def test_a_file_is_made_absolute_and_keeps_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("./a (b)/mine.py:Mine", "./a (b)/mine.py:Mine(limit=3)"):
        found = second(text)
        assert found.label == text
        assert found.mechanism.name == f"{tmp_path}/a (b)/mine.py:Mine"
    assert found.mechanism.parameters == {"limit": 3}


def test_all_is_every_mechanism_once_and_the_first_is_the_baseline() -> None:
    assert [c.label for c in read("all")] == ["off", "balloon", "page_reporting"]
    assert [c.label for c in read("page_reporting", "all")] == ["page_reporting", "off", "balloon"]
    labels = [c.label for c in read("off", "all", "off(x=1)")]
    assert labels == ["off", "balloon", "page_reporting", "off(x=1)"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "0 given; a comparison needs two or more"),
        (("off",), "1 given; a comparison needs two or more"),
        (("off", "off"), "--mechanism off: named twice"),
        (("off", "balloon(a=1)", "balloon( a = 1 )"), "balloon(a=1): named twice"),
        (("off", "all(x=1)"), "all takes no parameters"),
        (("off", ""), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "two words"), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "(order=0)"), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "balloon(order=0"), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "balloon(a:b"), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "balloon(a=\x1b[2J)"), "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (("off", "balloon(order)"), "'order' is not KEY=VALUE"),
        (("off", "balloon(order=)"), "'order=' is not KEY=VALUE"),
        (("off", "balloon(=1)"), "'=1' is not KEY=VALUE"),
        (("off", "balloon(a=1,)"), "'' is not KEY=VALUE"),
        (("off", "balloon(a.b=1)"), "'a.b=1' is not KEY=VALUE"),
        (("off", "balloon(name=off)"), "'name=off' is not KEY=VALUE"),
        (("off", "balloon(a=1,a=2)"), "a is given twice"),
        (("off", "balloon(a=[1)"), "a quote or a bracket has no other end"),
        (("off", "balloon(a='1)"), "a quote or a bracket has no other end"),
        (("off", "balloon(a=1))"), "a quote or a bracket has no other end"),
    ],
)
def test_what_cannot_be_read_is_one_line(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*texts)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
