"""Writes TOML 1.0: the other half of the standard library's `tomllib`.

Only what scenarios hold: tables, lists of tables, and values.  `tomllib.loads(dumps(x)) == x`.
"""

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any, Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SHORT_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROLS: Final = re.compile(r'[\x00-\x1f\x7f"\\]')


def dumps(document: Mapping[str, Any]) -> str:
    """The text of a TOML document: values first, then tables, in the order given.

    Raises `TypeError` for a value that TOML has no form for, such as None.
    """
    lines: list[str] = []
    _write_table(document, (), lines)
    return "\n".join(lines).strip("\n") + "\n"


def write_string(text: str) -> str:
    """A string as a TOML value, in quotes."""
    return f'"{_CONTROLS.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    return _SHORT_ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping) or _is_tables(v)}
    lines.extend(f"{_key(k)} = {_value(v)}" for k, v in table.items() if k not in nested)
    for key, value in nested.items():
        here = (*path, key)
        name = ".".join(map(_key, here))
        if isinstance(value, Mapping):
            lines.extend(("", f"[{name}]"))
            _write_table(value, here, lines)
            continue
        for item in value:
            lines.extend(("", f"[[{name}]]"))
            _write_table(item, here, lines)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else write_string(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            return write_string(value)
        case datetime.date() | datetime.time():  # A datetime is a date.
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"TOML has no form for {value!r}")
