"""The mechanisms by name, and a user's own by file and class.  Importing this imports none."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from emulator.config.parameters import decode_parameters, suggest
from emulator.errors import ConfigError, MechanismFailed
from emulator.guest.hinting.blame import blame

if TYPE_CHECKING:
    from emulator.guest.hinting.cycle import Mechanism

_HERE: Final = "emulator.guest.hinting.mechanisms"

MECHANISMS: Final[Mapping[str, str]] = {
    "off": f"{_HERE}.off:Off",
    "balloon": f"{_HERE}.balloon:Balloon",
    "balloon_cache_first": f"{_HERE}.balloon_cache_first:BalloonCacheFirst",
    "free_page_hint": f"{_HERE}.free_page_hint:FreePageHint",
    "percpu_arrays": f"{_HERE}.percpu_arrays:PercpuArrays",
    "bitmap": f"{_HERE}.bitmap:Bitmap",
    "aeration": f"{_HERE}.aeration:Aeration",
    "page_hinting": f"{_HERE}.page_hinting:PageHinting",
    "idle_age": f"{_HERE}.idle_age:IdleAge",
    "page_reporting": f"{_HERE}.page_reporting:PageReporting",
}


#: What every mechanism has, and with which arguments.
_PARTS: Final = {
    "shared_arrays": ("geometry",),
    "hooks": ("arrays",),
    "start": ("mm", "actor"),
}


def source_of(name: str) -> Path | None:
    """The file of a user's own mechanism `FILE:CLASS`; None for one of ours."""
    path, colon, _ = name.rpartition(":")
    return Path(path).resolve() if colon else None


def load_mechanism(name: str, parameters: Mapping[str, Any], *, where: str) -> "Mechanism":
    """The mechanism `name` (or `FILE:CLASS`) with its parameters.

    ConfigError: no such name, file or class; a file that cannot be imported; a bad parameter.
    """
    path = source_of(name)
    if path is None:
        if name not in MECHANISMS:
            known = suggest(name, MECHANISMS)
            raise ConfigError(f"{where}.name: unknown mechanism {name!r}{known}, or FILE:CLASS")
        module_name, _, class_name = MECHANISMS[name].partition(":")
        module = importlib.import_module(module_name)
    else:
        class_name = name.rpartition(":")[2]
        module = _import_file(path, where=where)
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or (path is None and not hasattr(found, "start")):
        raise ConfigError(
            f"{where}.name: {path or module.__name__} has no mechanism {class_name!r}"
        )
    if path is not None:
        _require_parts(found, path)
    return cast("Mechanism", decode_parameters(found, dict(parameters), where=where))


def _require_parts(found: type, path: Path) -> None:
    """Raise MechanismFailed if a user's class lacks a part of what a mechanism is."""
    from emulator.guest.hinting.cycle import Plain

    line = inspect.getsourcelines(found)[1]
    missing = [
        f"{part}({', '.join(names)})"
        for part, names in _PARTS.items()
        if not callable(getattr(found, part, None))
    ]
    if not isinstance(getattr(found, "name", None), str):
        missing.append('name = "..."')
    if issubclass(found, Plain):
        own = (("step", "mm, actor, batch, now_s"), ("drain", "mm, actor, batch, reported, now_s"))
        missing += [
            f"{part}({names})"
            for part, names in own
            if getattr(found, part) is getattr(Plain, part)
        ]
    if missing:
        raise MechanismFailed(
            f"{path}, line {line}: class {found.__name__} lacks {', '.join(missing)}"
        )


def _import_file(path: Path, *, where: str) -> Any:
    """A user's file as a module of its own name, so that other processes can find its classes."""
    if not path.is_file():
        raise ConfigError(f"{where}.name: {path} is not a file; a mechanism is given as FILE:CLASS")
    from devices.memory.jit import OWN_KERNELS, OWN_KERNELS_VARIABLE

    if path != OWN_KERNELS:
        raise ConfigError(
            f"{where}.name: the kernels of {path.name} need a cache of their own: run it by "
            f"python -m emulator, or set {OWN_KERNELS_VARIABLE}={path} before Python starts"
        )
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or known is not None:
        raise ConfigError(f"{where}.name: {path} cannot be imported as {name!r}; rename the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        blamed = blame(path, error) or f"{path}: {type(error).__name__}: {error}"
        raise MechanismFailed(f"{blamed}; it cannot be imported") from error
    return module
