"""A table of a scenario -> a frozen dataclass or struct, strictly, and back.

`decode_parameters(Balloon, {"delay": "250ms"}, where="memhog.toml: mechanism")` finds the field
`delay_s`, reads the time, and makes the instance.  Whatever is wrong is a `ConfigError` of one
line that names the place, the key and what would work.  The classes check their own ranges and
raise `ValueError`; the text may begin with the key, as in "vcpus: 0 is not between 1 and 64".
"""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from emulator.config.units import Unit, unit_of
from emulator.errors import ConfigError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    unit: Unit | None
    type: Any
    required: bool


def decode_parameters(cls: type[T], parameters: Mapping[str, Any], *, where: str) -> T:
    """An instance of `cls` with the values of a TOML table.

    `cls`: a frozen dataclass or `msgspec.Struct`.  A field with a unit in its name is read under
    the key without the unit (`delay_s` under `delay`, `size_bytes` under `size`,
    `rate_bytes_per_s` under `rate`); a field that is a dataclass or struct, or a list of them,
    is read from a table in the same way.
    `where`: what precedes the key in messages, such as `"memhog.toml: mechanism"`.

    Raises `ConfigError` for an unknown or missing key, a value of the wrong type or unit, and for
    what `cls` itself refuses.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{where}: must be a table, not {_shown(parameters)}")
    fields = {field.key: field for field in _fields(cls)}
    values: dict[str, Any] = {}
    for key, value in parameters.items():
        if key not in fields:
            key_of = {field.name: field.key for field in fields.values()}
            raise ConfigError(f"{where}.{key}: unknown key{suggest(key_of.get(key, key), fields)}")
        values[fields[key].name] = _decode(fields[key], value, where=f"{where}.{key}")
    for field in fields.values():
        if field.required and field.name not in values:
            raise ConfigError(f"{where}.{field.key}: missing; the key must be given")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        text = " ".join(str(error).split())
        joint = "." if text.partition(":")[0].split(".")[0] in fields else ": "
        raise ConfigError(f"{where}{joint}{text}") from None


def encode_parameters(instance: Any) -> dict[str, Any]:
    """The TOML table that `decode_parameters` turns into an equal instance.

    Every field is written, defaults too, so that the table keeps its meaning when a default
    changes.  A field that is None is left out, for TOML has no such value.
    """
    encoded = {}
    for field in _fields(type(instance)):
        value = getattr(instance, field.name)
        if value is not None:
            encoded[field.key] = _encode(field.unit, value)
    return encoded


def named_table(table: Any, section: str, key: str) -> tuple[str, dict[str, Any]]:
    """The name of a part under `key` of its table, and its parameters: all other keys.

    Raises `ConfigError` naming the section.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: missing; the table must be given with its {key}")
    parameters = {k: v for k, v in table.items() if k != key}
    name = table.get(key)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{section}.{key}: missing or empty; python -m emulator list shows them")
    return name, parameters


def suggest(key: str, allowed: Iterable[str]) -> str:
    """How a message about an unknown name ends: the nearest allowed one, and all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} allowed: {', '.join(names) or 'none'}"


def _fields(cls: Any) -> list[_Field]:
    hints = typing.get_type_hints(cls)
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        found = [
            (f.name, f.default is missing and f.default_factory is missing)
            for f in dataclasses.fields(cls)
            if f.init
        ]
    else:
        found = [(f.name, f.required) for f in msgspec.structs.fields(cls)]
    fields = [_Field(name, *unit_of(name), hints[name], required) for name, required in found]
    keys = [field.key for field in fields]
    assert len(set(keys)) == len(keys), f"{cls.__name__}: two fields share a key: {keys}"
    return fields


def _decode(field: _Field, value: Any, *, where: str) -> Any:
    alternatives = _alternatives(field.type)
    for alternative in alternatives:
        if _is_record(alternative):
            return decode_parameters(alternative, value, where=where)
        origin, arguments = typing.get_origin(alternative), typing.get_args(alternative)
        if origin in (list, tuple) and arguments and _is_record(arguments[0]):
            if not isinstance(value, list):
                raise ConfigError(f"{where}: must be a list of tables, not {_shown(value)}")
            decoded = [
                decode_parameters(arguments[0], item, where=f"{where}.{index}")
                for index, item in enumerate(value)
            ]
            return origin(decoded)
        if origin is Literal and value not in arguments:
            choices = ", ".join(str(argument) for argument in arguments)
            raise ConfigError(f"{where}: {_shown(value)} will not do; use one of: {choices}")
    try:
        if field.unit is not None:
            read = field.unit.read
            converted = [read(item) for item in value] if isinstance(value, list) else read(value)
        else:
            converted = value
        return msgspec.convert(converted, field.type, dec_hook=_path_from_text)
    except msgspec.ValidationError as error:
        if field.unit is not None and isinstance(converted, float):
            raise ConfigError(
                f"{where}: {_shown(value)} will not do: not a whole number of {field.unit.name}"
            ) from None
        text = str(error).replace("`", "").replace("Expected", "expected", 1)
        raise ConfigError(f"{where}: {_shown(value)} will not do: {text}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _encode(unit: Unit | None, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_encode(unit, item) for item in value]
    if unit is not None:
        return unit.write(value)
    if _is_record(type(value)):
        return encode_parameters(value)
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, without None; else the type itself."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return tuple(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return (annotation,)


def _is_record(cls: Any) -> bool:
    return isinstance(cls, type) and (
        dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct)
    )


def _path_from_text(cls: type, value: Any) -> Any:
    if cls is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{_shown(value)} will not do: expected {cls.__name__}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
