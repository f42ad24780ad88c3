"""The balloon managers by name, and a user's own by file and class; importing this imports none."""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
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
    "mom": f"{_HERE}.mom:Mom",
    "share": f"{_HERE}.share:Share",
}


def load_manager(name: str, parameters: Mapping[str, Any], *, where: str) -> "Manager":
    """The manager `name`, or `FILE:CLASS`, with its parameters.

    ConfigError: no such name, file or class; a file that cannot be imported; a bad parameter.
    """
    path, colon, class_name = name.rpartition(":")
    if colon:
        found = _own_class(Path(path), class_name, where=f"{where}.name")
    elif name in MANAGERS:
        module_name, _, class_name = MANAGERS[name].partition(":")
        found = getattr(importlib.import_module(module_name), class_name)
    else:
        known = suggest(name, MANAGERS)
        raise ConfigError(f"{where}.name: unknown balloon manager {name!r}{known}, or FILE:CLASS")
    return cast("Manager", decode_parameters(found, dict(parameters), where=where))


def _own_class(path: Path, class_name: str, *, where: str) -> type:
    """A user's class, from a module that nothing else can find."""
    if not path.is_file():
        raise ConfigError(f"{where}: {path} is not a file; a manager is given as FILE:CLASS")
    spec = importlib.util.spec_from_file_location(f"own_manager_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look for their module there.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{where}: {path} cannot be imported: {said}") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not callable(getattr(found, "decide", None)):
        raise ConfigError(f"{where}: {path} has no class {class_name!r} with decide(seen)")
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigError(f'{where}: class {class_name} in {path} lacks name = "..."')
    if not dataclasses.is_dataclass(found):
        raise ConfigError(f"{where}: class {class_name} in {path} must be a dataclass")
    return found
