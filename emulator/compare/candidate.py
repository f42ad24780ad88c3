"""A mechanism with its parameters, as `--mechanism` names it: to run, to compare, to scale.

    off    page_reporting    page_reporting(order=0,delay=100ms)    ./mine.py:Mine(limit=3)    all

Parameters are written as for `--set`.  Without any, and for what is not named, a mechanism has its
defaults, but the scenario's own mechanism has what the scenario says.  `all` is every mechanism
that comes with the emulator, in a comparison.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emulator.config.overrides import apply_overrides
from emulator.config.scenario import MechanismConfig, Scenario
from emulator.config.toml import write_string
from emulator.errors import ConfigError

ALL: Final = "all"

_CANDIDATE: Final = re.compile(
    r"\s*(?P<name>[^\s():/.]+|.+?\.py:\w+)\s*(?:\((?P<parameters>.*)\))?\s*", re.DOTALL
)
_OPENING: Final = "([{"
_CLOSING: Final = ")]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A mechanism to compare; `label` is what the user wrote, without spaces around signs."""

    label: str
    mechanism: MechanismConfig


def read_candidates(
    texts: Sequence[str], scenario: Scenario, registered: Iterable[str]
) -> list[Candidate]:
    """The candidates in their order; the first is the baseline.

    `registered`: the names that `all` stands for; those that are named besides are left out of it.
    Raises ConfigError for text that cannot be read, for a candidate that is named twice and for
    fewer than two.  Whether a name and its parameters exist is not looked at.
    """
    found: dict[str, Candidate] = {}
    for text in texts:
        candidate = read_candidate(text, scenario)
        if candidate.label in found and candidate.label != ALL:
            raise ConfigError(
                f"--mechanism {candidate.label}: named twice; name another one, or the same with "
                f"parameters, such as {candidate.mechanism.name}(KEY=VALUE)"
            )
        found[candidate.label] = candidate
    candidates: list[Candidate] = []
    for label, candidate in found.items():
        if label == ALL:
            candidates += [
                read_candidate(name, scenario) for name in registered if name not in found
            ]
        else:
            candidates.append(candidate)
    if len(candidates) < 2:
        raise ConfigError(
            f"--mechanism: {len(candidates)} given; a comparison needs two or more, the first "
            "being the baseline, such as --mechanism off --mechanism page_reporting"
        )
    return candidates


def read_candidate(text: str, scenario: Scenario) -> Candidate:
    """The candidate that `text` names.  Raises ConfigError for text that cannot be read."""
    name, pairs = _parse(text)
    label = name if pairs is None else f"{name}({','.join(f'{k}={v}' for k, v in pairs)})"
    file, colon, cls = name.rpartition(":")
    if colon:
        name = f"{Path(file).resolve()}:{cls}"
    own = scenario.mechanism
    document: dict[str, Any] = {"mechanism": {"name": own.name, **own.parameters}}
    apply_overrides(document, _settings(name, pairs or []))
    table = document["mechanism"]
    return Candidate(
        label=label, mechanism=MechanismConfig(name=table.pop("name"), parameters=table)
    )


def settings_of(text: str) -> list[str]:
    """`--mechanism` as `--set` would have it.  Raises ConfigError for text that cannot be read."""
    name, pairs = _parse(text)
    return _settings(name, pairs or [])


def _settings(name: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    settings = [f"mechanism.{key}={value}" for key, value in pairs]
    return [f"mechanism.name={write_string(name)}", *settings]


def _parse(text: str) -> tuple[str, list[tuple[str, str]] | None]:
    """The name, and the parameters if there are brackets."""
    match = _CANDIDATE.fullmatch(text)
    if match is None or not text.isprintable():
        raise ConfigError(
            f"--mechanism {text!r}: write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...), such as "
            "page_reporting(order=0,delay=100ms)"
        )
    name, parameters = match["name"], match["parameters"]
    if name == ALL and parameters is not None:
        raise ConfigError(f"--mechanism {text!r}: all takes no parameters; name the mechanisms")
    return name, None if parameters is None else _read_parameters(text, parameters.strip())


def _read_parameters(text: str, parameters: str) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for part in _split(text, parameters):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or not key.isidentifier() or key == "name":
            raise ConfigError(
                f"--mechanism {text!r}: {part.strip()!r} is not KEY=VALUE, such as delay=100ms"
            )
        if key in pairs:
            raise ConfigError(f"--mechanism {text!r}: {key} is given twice")
        pairs[key] = value
    return list(pairs.items())


def _split(text: str, parameters: str) -> list[str]:
    """At the commas that are in no quotes and in no brackets."""
    parts, depth, quote, escaped = [""], 0, "", False
    for character in parameters:
        if quote:
            if character == quote and not escaped:
                quote = ""
            escaped = character == "\\" and quote == '"' and not escaped
        elif character in "\"'":
            quote = character
        elif character in _OPENING or character in _CLOSING:
            depth += 1 if character in _OPENING else -1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
        if depth < 0:
            break
    if quote or depth:
        raise ConfigError(f"--mechanism {text!r}: a quote or a bracket has no other end")
    return [] if parts == [""] else parts
