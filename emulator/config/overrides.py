"""`--set KEY=VALUE`: any key of a scenario, replaced before the scenario is checked.

A key is a dotted path; a number in it picks from a list: `expect.0.at_most=300MiB`.  The value is
read as TOML if it is TOML, else it is a string, so that `guest.vcpus=8` is a number and
`mechanism.delay=250ms` needs no quotes.
"""

import tomllib
from collections.abc import Iterable
from typing import Any, Final

from emulator.errors import ConfigError

# Another mechanism has other parameters: with the name, the file's parameters go.
_NAMES: Final = (("mechanism", "name"), ("workload", "kind"), ("balloon", "manager", "name"))


def apply_overrides(document: dict[str, Any], overrides: Iterable[str]) -> list[str]:
    """Change `document`, as tomllib read it, in place; returns the keys that were set.

    Whatever order they are given in, another `mechanism.name` or `workload.kind` is set first and
    drops the parameters that the document had for the old one; then the rest, from the left.

    Raises `ConfigError` for a text that is not KEY=VALUE and for a path that leads through a value.
    """
    parsed = [_parse(text) for text in overrides]
    for path, value in (p for p in parsed if p[0] in _NAMES):
        table: Any = document
        for part in path[:-1]:
            table = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, dict) and table.get(path[-1]) != value:
            table.clear()
    for path, value in sorted(parsed, key=lambda p: p[0] not in _NAMES):
        _set(document, path, value)
    return [".".join(path) for path, _ in parsed]


def _parse(text: str) -> tuple[tuple[str, ...], Any]:
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: write it as KEY=VALUE, such as guest.vcpus=8")
    return path, _value(value.strip())


def _value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _set(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    node: Any = document
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        shown = ".".join(path[:depth])
        if isinstance(node, list):
            if not part.isdecimal() or int(part) > len(node):
                raise ConfigError(
                    f"--set {'.'.join(path)}: {shown} is a list of {len(node)}; "
                    f"use a number from 0 to {len(node)} in place of {part!r}"
                )
            index = int(part)
            if index == len(node):
                node.append({})
            if last:
                node[index] = value
            node = node[index]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                is_list = part not in node and path[depth + 1] == "0"
                node = node.setdefault(part, [] if is_list else {})
        else:
            raise ConfigError(f"--set {'.'.join(path)}: {shown} is a value and has no keys")
