"""Names and first lines of mechanisms, workloads and balloon managers, without importing them.

The registries map a name to "module:Class".  A first line is read from the module's source, so
that `list` and completion need neither numba nor the module itself.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from emulator.config.parameters import suggest
from emulator.config.scenario import ROOT, Scenario
from emulator.errors import ConfigError

_NO_TEXT: Final = "(no description)"


def mechanisms() -> Mapping[str, str]:
    """Name -> "module:Class" of every mechanism that comes with the emulator."""
    from emulator.guest.hinting.registry import MECHANISMS

    return MECHANISMS


def workloads() -> Mapping[str, str]:
    """Kind -> "module:Class" of every workload."""
    from emulator.workloads.registry import WORKLOADS

    return WORKLOADS


def managers() -> Mapping[str, str]:
    """Name -> "module:Class" of every balloon manager."""
    from emulator.host.managers.registry import MANAGERS

    return MANAGERS


def first_line(target: str) -> str:
    """The first line of the docstring of "module:Class": of the module, else of the class."""
    module, _, cls = target.partition(":")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls]
    texts = [ast.get_docstring(tree), *map(ast.get_docstring, classes)]
    return next((text.splitlines()[0] for text in texts if text), _NO_TEXT)


def require_names(scenario: Scenario) -> None:
    """Raise `ConfigError` if the scenario names what does not exist."""
    require_mechanism(scenario.mechanism.name, where=scenario.where("mechanism.name"))
    kinds = workloads()
    kind = scenario.workload.kind
    if kind not in kinds:
        where = scenario.where("workload.kind")
        raise ConfigError(f"{where}: no workload {kind!r}{suggest(kind, kinds)}")
    if scenario.balloon is not None:
        _require_manager(scenario.balloon.manager.name, scenario.where("balloon.manager.name"))


def _require_manager(name: str, where: str) -> None:
    file, colon, cls = name.rpartition(":")
    if colon:
        _require_class(Path(file), cls, where=where)
        return
    known = managers()
    if name not in known:
        said = f"{where}: no balloon manager {name!r}{suggest(name, known)}"
        raise ConfigError(f"{said}, or FILE:CLASS")


def require_mechanism(name: str, *, where: str) -> None:
    """Raise `ConfigError` if `name` is no registered mechanism and no FILE:CLASS that exists."""
    file, colon, cls = name.rpartition(":")
    if colon:
        _require_class(Path(file), cls, where=where)
        return
    names = mechanisms()
    if name not in names:
        raise ConfigError(f"{where}: no mechanism {name!r}{suggest(name, names)}, or FILE:CLASS")


def _require_class(file: Path, cls: str, *, where: str) -> None:
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except OSError as error:
        raise ConfigError(f"{where}: {file}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{where}: {file}: not Python: {error}") from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if cls not in classes:
        raise ConfigError(f"{where}: {file}: no class {cls!r}{suggest(cls, classes)}")
