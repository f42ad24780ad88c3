"""The footprints that were recorded, by the mechanism under which they were.

Every guest of every run is one recording, and those of one run stay together: a manager of their
host couples them.  Runs of the same mechanism with the same parameters are
put together, whatever they ran: guests of a host need not be alike.  A comparison's runs stand
under the names that it has for its mechanisms.  What a host had swapped out of a guest counts as
held: it would be resident where there is room.  A table of one's own is a CSV file with the columns
`time_s` and `resident_bytes`, others are passed over; all such tables are put together.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from emulator.capacity.capacities import (
    CapacityOf,
    Recording,
    Run,
    capacities_of,
    from_json,
    to_json,
)
from emulator.compare import comparison as compared
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError
from emulator.run_folder import (
    CAPACITY,
    COMPARISON,
    SERIES,
    SERIES_GUESTS,
    RunFolder,
    write_atomically,
)
from emulator.summary import SeriesRow

OWN: Final = "recorded"
_TIME, _BYTES = "time_s", "resident_bytes"


def read_recorded(paths: Sequence[Path]) -> dict[str, list[Run]]:
    """The runs in run folders, comparisons and CSV files, by mechanism, in their order.

    Raises ConfigError for what is none of these, is damaged, or has no sample.
    """
    found: list[tuple[str, dict[str, Any], list[Run]]] = []
    for path in paths:
        if path.is_file():
            found.append((OWN, {}, [[_read_own(path)]]))
        elif (path / COMPARISON).is_file():
            comparison = compared.from_json(
                (path / COMPARISON).read_bytes(), where=str(path / COMPARISON)
            )
            found += [(label, {}, runs) for label, runs in recorded_in(comparison, path).items()]
        else:
            folder = RunFolder.open(path)
            mechanism = folder.read_scenario().mechanism
            found.append((mechanism.name, mechanism.parameters, [recordings_of(folder)]))
    recorded: dict[str, list[Run]] = {}
    for name, parameters, runs in found:
        differ = any(other != parameters for label, other, _ in found if label == name)
        given = ",".join(f"{key}={value}" for key, value in parameters.items())
        label = f"{name}({given})" if differ and given else name
        recorded.setdefault(label.rpartition("/")[2], []).extend(runs)
    return recorded


def capacity_in(folder: RunFolder, scenario: Scenario) -> list[CapacityOf]:
    """What the scenario of a run asks of its footprints: as its folder has it, where it is made and
    written if it has not; nothing if it is not asked.  Raises ConfigError for a damaged file."""
    if scenario.capacity is None:
        return []
    path = folder.path / CAPACITY
    if path.is_file():
        return from_json(path.read_bytes(), where=str(path))
    recorded = {scenario.mechanism.name.rpartition("/")[2]: [recordings_of(folder)]}
    found = capacities_of(recorded, scenario.capacity, seed=scenario.run.seed)
    write_atomically(path, to_json(found) + "\n")
    return found


def recorded_in(comparison: compared.Comparison, folder: Path) -> dict[str, list[Run]]:
    """The runs of each mechanism of a comparison that lies in `folder`."""
    return {
        mechanism.label: [
            recordings_of(RunFolder(folder / run.folder))
            for run in comparison.runs
            if run.mechanism == mechanism.label and run.summary is not None
        ]
        for mechanism in comparison.mechanisms
    }


def recordings_of(folder: RunFolder) -> Run:
    """Of each guest of a run.  Raises ConfigError for a damaged file, and without a sample."""
    guests = folder.read_guests_series()
    where = folder.path / (SERIES_GUESTS if guests else SERIES)
    return [_recording(rows, where) for rows in guests or [folder.read_series()]]


def _recording(rows: Sequence[SeriesRow], where: Path) -> Recording:
    known = [
        (row.time_s, float(row.resident_bytes + (row.swapped_bytes or 0)))
        for row in rows
        if row.resident_bytes is not None
    ]
    if not known:
        raise ConfigError(f"{where}: has no sample of resident memory")
    return [time_s for time_s, _ in known], [size for _, size in known]


def _read_own(path: Path) -> Recording:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a CSV file: it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = {_TIME, _BYTES} - set(reader.fieldnames or ())
    if missing:
        raise ConfigError(
            f"{path}: has no column {' and no column '.join(sorted(missing))}; its first line must "
            f"name {_TIME} and {_BYTES}"
        )
    times: list[float] = []
    sizes: list[float] = []
    for row in reader:
        try:
            time_s, size = float(row[_TIME]), float(row[_BYTES])
        except (TypeError, ValueError):
            if row[_BYTES] in ("", None) and row[_TIME]:
                continue  # Not measured.
            raise ConfigError(
                f"{path}: line {reader.line_num}: {row[_TIME]!r} and {row[_BYTES]!r} are not "
                "seconds and bytes"
            ) from None
        if not (0 <= size < float("inf") and abs(time_s) < float("inf")):
            raise ConfigError(
                f"{path}: line {reader.line_num}: {time_s:g} s and {size:g} bytes cannot be"
            )
        times.append(time_s)
        sizes.append(size)
    if not times:
        raise ConfigError(f"{path}: has no sample of resident memory")
    return times, sizes
