"""The workloads by kind.  Importing this imports none."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from emulator.config.parameters import decode_parameters, suggest
from emulator.errors import ConfigError

if TYPE_CHECKING:
    from emulator.workloads.workload import Workload

_HERE: Final = "emulator.workloads"

WORKLOADS: Final[Mapping[str, str]] = {
    "memhog": f"{_HERE}.memhog:Memhog",
    "page_fault1": f"{_HERE}.page_fault1:PageFault1",
    "churn": f"{_HERE}.churn:Churn",
    "replay": f"{_HERE}.replay:Replay",
    "trickle": f"{_HERE}.trickle:Trickle",
    "ageing": f"{_HERE}.ageing:Ageing",
    "files": f"{_HERE}.files:Files",
    "migrate": f"{_HERE}.migrate:Migrate",
    "uml_memhog": f"{_HERE}.uml_memhog:UmlMemhog",
    "build": f"{_HERE}.build:Build",
    "kernbench": f"{_HERE}.kernbench:Kernbench",
}


def load_workload(kind: str, parameters: Mapping[str, Any], *, where: str) -> "Workload":
    """The workload `kind` with its parameters; ConfigError for an unknown kind or parameter."""
    if kind not in WORKLOADS:
        raise ConfigError(f"{where}.kind: unknown workload {kind!r}{suggest(kind, WORKLOADS)}")
    module_name, _, class_name = WORKLOADS[kind].partition(":")
    found = getattr(importlib.import_module(module_name), class_name)
    return cast("Workload", decode_parameters(found, dict(parameters), where=where))
