"""Reading and replaying a long trace: the recording that comes with the emulator, many times over.

One copy after the other, behind one header.  What a copy leaves allocated, the next allocates once
more, which the compiler of traces takes as frees that were not recorded.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from emulator.bench.series import Measurement
from emulator.config.scenario import SCENARIOS, load_scenario
from emulator.config.toml import write_string
from emulator.errors import RunFailed
from emulator.observer import NullObserver, Observer
from emulator.runner import run
from emulator.traces.reader import read_trace
from emulator.traces.text_file import TextFile

RECORDING: Final = SCENARIOS / "data" / "compile-2g-excerpt.trace.zst"
_COPIES: Final = 30
_REPEATS: Final = 5


def measure_replay(
    names: Sequence[str], observer: Observer, *, copies: int = _COPIES, repeats: int = _REPEATS
) -> Mapping[str, Measurement]:
    """`replay.events_per_s` and `replay.parse_lines_per_s`."""
    measures = {"replay.events_per_s": _apply, "replay.parse_lines_per_s": _parse}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        trace = Path(folder) / "long.trace"
        write_long_trace(trace, copies)
        return {name: _repeat(measures[name], trace, repeats) for name in names}


def write_long_trace(path: Path, copies: int) -> None:
    """The recording's header once and its events `copies` times, as plain text."""
    lines = b"".join(TextFile(RECORDING).pieces()).splitlines(keepends=True)
    header = [line for line in lines if line.startswith(b"#")]
    events = b"".join(line for line in lines if not line.startswith(b"#"))
    with path.open("wb") as file:
        file.writelines(header)
        for _ in range(copies):
            file.write(events)


def _repeat(measure: Callable[[Path], float], trace: Path, repeats: int) -> Measurement:
    """After one that compiles and warms up."""
    return Measurement(tuple(measure(trace) for _ in range(repeats + 1))[1:])


def _parse(trace: Path) -> float:
    """Lines a second."""
    began_s = time.perf_counter()
    found = read_trace(trace).statistics
    return found.lines / (time.perf_counter() - began_s)


def _apply(trace: Path) -> float:
    """Events a second, over the whole run but for reading the trace."""
    changed = [
        f"workload.trace={write_string(str(trace))}",
        "workload.speed=0",
        "workload.warm=false",
        'workload.idle="0s"',
    ]
    summary = run(load_scenario("replay", changed), output=trace.parent, observer=NullObserver())
    if summary.oracle.violations or not summary.wall_s:
        raise RunFailed("the oracle found pages that were discarded while in use")
    return float(summary.workload["events_applied"]) / summary.wall_s
