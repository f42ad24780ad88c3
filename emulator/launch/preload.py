"""Loaded once into the fork server: every child then has its code, and its kernels compiled.

Compiling (or loading what is compiled) is done by running a scenario's own mechanism and workload
once, small, in virtual time.  The scenarios come in the environment, for a fork server imports
modules and takes no arguments.
"""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import emulator.commands.application  # noqa: F401  (what children import as __main__)
from devices.memory.jit import CACHE_FOLDER, interpreted
from emulator.config.balloon import BalloonConfig, ManagerConfig
from emulator.config.host import HostConfig
from emulator.config.scenario import Scenario, decode_scenario
from emulator.launch.fork_server import PRELOAD_VARIABLE
from emulator.launch.virtual import run_virtual
from emulator.machine import Machine
from emulator.machine_parts import balloon_of, load_parts
from emulator.observer import NullObserver

_REHEARSAL_BYTES: Final = 512 << 20  # Enough for a pass of free page reporting at order 10.

# A little in and out again: one kernel each way, whatever the workload does meanwhile.
_REHEARSED_BALLOON: Final = BalloonConfig(
    every_s=0.001,
    manager=ManagerConfig(
        name="steps",
        parameters={"steps": [{"at": "0s", "memory": "511MiB"}, {"at": "3ms", "memory": "512MiB"}]},
    ),
)


def marker(scenario: Scenario) -> Path:
    """Exists once the kernels for such a scenario are compiled and kept."""
    kind = f"{Path(scenario.mechanism.name).name}-{scenario.workload.kind}-{scenario.guest.ram}"
    kind += "-balloon" if scenario.balloon is not None else ""
    kind += "-swap" if scenario.host.swap_bytes is not None else ""
    return CACHE_FOLDER / f"{kind.replace(':', '-')}.compiled"


def note_compiled(scenario: Scenario) -> None:
    """Make the marker; in the meantime others may have dropped the folder."""
    CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
    marker(scenario).touch()


def announce(scenario: Scenario, say: Callable[[str], None]) -> None:
    """Tell the user if kernels have to be compiled first."""
    if not interpreted() and not marker(scenario).exists():
        say("compiling kernels (once for each mechanism and workload, about 20 s)")


def rehearse(scenario: Scenario) -> None:
    """Compile and load every kernel that such a run needs."""
    mechanism, workload = load_parts(scenario)
    balloon = balloon_of(scenario, mechanism)
    guest = msgspec.structs.replace(
        scenario.guest, memory_bytes=_REHEARSAL_BYTES, vcpus=2, zones=()
    )
    small = msgspec.structs.replace(
        scenario,
        guest=guest,
        balloon=None
        if balloon is None
        else msgspec.structs.replace(_REHEARSED_BALLOON, deflate_on_oom=balloon.deflate_on_oom),
        host=_rehearsed_host(scenario.host),
        run=msgspec.structs.replace(scenario.run, sample_s=1.0, time_limit_s=None),
    )
    # One that would not report anything so small says which of its kind does.
    mechanism = getattr(mechanism, "rehearsal", lambda: mechanism)()
    with Machine.create_for(small, mechanism, workload.rehearsal(), shared=False) as machine:
        run_virtual([machine], NullObserver())
    note_compiled(scenario)


def _rehearsed_host(host: HostConfig) -> HostConfig:
    """One that must swap, if it can."""
    if host.swap_bytes is None:
        return host
    return msgspec.structs.replace(host, memory_bytes=1 << 20, swap_bytes=_REHEARSAL_BYTES)


for _text in json.loads(os.environ.get(PRELOAD_VARIABLE, "[]")):
    rehearse(decode_scenario(tomllib.loads(_text), name="preload", source="preload"))
