"""The balloon managers by name.  Importing this imports none."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from emulator.config.parameters import decode_parameters, suggest
from emulator.errors import ConfigError

if TYPE_CHECKING:
    from emulator.host.managers.manager import Manager

_HERE: Final = "emulator.host.managers"

MANAGERS: Final[Mapping[str, str]] = {
    "none": f"{_HERE}.none:NoManager",
    "steps": f"{_HERE}.steps:Steps",
    "wave": f"{_HERE}.wave:Wave",
    "band": f"{_HERE}.band:Band",
}


def load_manager(name: str, parameters: Mapping[str, Any], *, where: str) -> "Manager":
    """The manager `name` with its parameters; ConfigError for an unknown name or parameter."""
    if name not in MANAGERS:
        raise ConfigError(
            f"{where}.name: unknown balloon manager {name!r}{suggest(name, MANAGERS)}"
        )
    module_name, _, class_name = MANAGERS[name].partition(":")
    found = getattr(importlib.import_module(module_name), class_name)
    return cast("Manager", decode_parameters(found, dict(parameters), where=where))
