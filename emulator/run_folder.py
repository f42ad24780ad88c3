"""A run's folder: everything needed to read the run again, and to repeat it.

    runs/<utc>-<scenario>/    scenario.toml   resolved: running it repeats the run
                              manifest.json   versions, machine, seed, argv, start
                              log.jsonl       phases and events as they happened, a line each
                              series.csv      a row a sample
                              capacity.json   how many such guests fit a host, where that is asked
                              series-guests.csv   of several guests: the samples of each
                              summary.json    the figures; not there if the run did not end
                              reports.csv     of a guest that is served over vhost-user: each range
                                              that it reported, written while it runs
                              report.html     written by the report, not here

Every file but the logs is written under another name and renamed: it is whole, or not there.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from emulator.config.scenario import Scenario, decode_scenario, to_toml
from emulator.errors import ConfigError, RunFailed
from emulator.guests_series import read_guests_series
from emulator.interrupt import deferred_interrupt
from emulator.machine_check import describe_machine, describe_versions
from emulator.observer import Observer
from emulator.series import read_series, write_series
from emulator.summary import SeriesRow, Summary, from_json, to_json

RUNS: Final = Path("runs")
SCENARIO: Final = "scenario.toml"
MANIFEST: Final = "manifest.json"
LOG: Final = "log.jsonl"
SERIES: Final = "series.csv"
SERIES_GUESTS: Final = "series-guests.csv"
SUMMARY: Final = "summary.json"
REPORTS: Final = "reports.csv"
REPORT: Final = "report.html"
CAPACITY: Final = "capacity.json"
COMPARISON: Final = "comparison.json"  # Of a comparison, whose runs have folders beneath.
_FILES: Final = (
    *(SCENARIO, MANIFEST, LOG, SERIES, SERIES_GUESTS, SUMMARY, CAPACITY, REPORTS, REPORT),
)
_SAME_SECOND_MAX: Final = 1000


class RunFolder:
    """The folder of one run.  `path` is where it lies."""

    def __init__(self, path: Path, *, created: bool = False) -> None:
        """For `create` and `open`; `created` folders may be removed by `discard`."""
        self.path = path
        self._created = created

    @classmethod
    def create(cls, output: Path | None, scenario_name: str, now: datetime) -> "RunFolder":
        """A new folder: `output`, or `runs/<utc>-<scenario>` in the current folder.

        `now` is an aware time.  Two runs in one second get names of their own.
        Raises `ConfigError` if the folder cannot be written or holds a run already.
        """
        if output is not None:
            return cls._create_at(output)
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        base = re.sub(r"[^\w.-]+", "-", f"{stamp}-{scenario_name}")
        with _written(RUNS):
            RUNS.mkdir(exist_ok=True)
        for number in range(1, _SAME_SECOND_MAX):
            path = RUNS / (base if number == 1 else f"{base}-{number}")
            with _written(path), contextlib.suppress(FileExistsError):
                path.mkdir()
                return cls(path, created=True)
        raise ConfigError(f"{RUNS / base}: {_SAME_SECOND_MAX} runs in one second; give --output")

    @classmethod
    def _create_at(cls, path: Path) -> "RunFolder":
        with _written(path):
            created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            held = sorted(name for name in _FILES if (path / name).exists())
            if held:
                raise ConfigError(f"{path}: holds a run already ({held[0]}); give another folder")
            with tempfile.TemporaryFile(dir=path):
                return cls(path, created=created)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of a run that ended.  Raises `ConfigError` if it is none."""
        if not path.is_dir():
            raise ConfigError(f"{path}: no such run folder")
        for name in (SUMMARY, SCENARIO):
            if not (path / name).is_file():
                began = (path / MANIFEST).exists()
                why = "the run did not end" if began else "this is not a run folder"
                raise ConfigError(f"{path}: has no {name}: {why}")
        return cls(path)

    def write_scenario(self, scenario: Scenario) -> None:
        """Write `scenario.toml`, resolved."""
        self._write(SCENARIO, to_toml(scenario))

    def write_manifest(self, *, seed: int, started: datetime) -> None:
        """Write `manifest.json`: versions, machine, seed, argv and the start in UTC."""
        manifest = {
            "schema": 1,
            "started_utc": started.astimezone(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "argv": sys.argv,
            "versions": describe_versions(),
            "machine": describe_machine(),
        }
        self._write(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def write_summary(self, summary: Summary) -> None:
        """Write `summary.json`."""
        self._write(SUMMARY, to_json(summary) + "\n")

    def write_series(self, rows: Iterable[SeriesRow]) -> None:
        """Write `series.csv`."""
        self._write(SERIES, write_series(rows))

    @contextmanager
    def recording(
        self, inner: Observer, rows: list[SeriesRow] | None = None
    ) -> Iterator["Recorder"]:
        """An observer that logs phases and events, keeps the samples, and tells `inner` too.

        rows:  an empty list that samples are appended to; None: an ordinary one

        On the way out, however that comes about, `series.csv` is written.
        """
        path = self.path / LOG
        with _written(path):
            log = path.open("a", encoding="utf-8", buffering=1)
        with log:
            recorder = Recorder(log, inner, [] if rows is None else rows)
            try:
                yield recorder
            except RunFailed as error:
                recorder.failed(error)
                raise
            finally:
                self.write_series(recorder.rows)

    def discard(self) -> None:
        """Remove the files of a run that never began, and the folder if `create` made it."""
        for name in _FILES:
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
        if self._created:
            with contextlib.suppress(OSError):  # Someone else's file in it keeps it.
                self.path.rmdir()

    def read_scenario(self) -> Scenario:
        """The scenario as it was run.  Raises `ConfigError` if the file is damaged."""
        source = str(self.path / SCENARIO)
        try:
            document = tomllib.loads(self._read(SCENARIO))
            return decode_scenario(document, name=self.path.name, source=source)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source}: damaged: {' '.join(str(error).split())}") from None
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith(source) else f"{source}: {text}") from None

    def read_summary(self) -> Summary:
        """The summary.  Raises `ConfigError` if the file is missing or damaged."""
        return from_json(self._read(SUMMARY), where=str(self.path / SUMMARY))

    def read_series(self) -> list[SeriesRow]:
        """The samples.  Raises `ConfigError` if the file is missing or damaged."""
        return read_series(self._read(SERIES), where=str(self.path / SERIES))

    def read_guests_series(self) -> list[list[SeriesRow]]:
        """The samples of each guest; none where there is one only.  Raises as `read_series`."""
        path = self.path / SERIES_GUESTS
        if not path.is_file():
            return []
        return read_guests_series(self._read(SERIES_GUESTS), where=str(path))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.  Raises `ConfigError` if the file is missing or damaged."""
        try:
            manifest = json.loads(self._read(MANIFEST))
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{self.path / MANIFEST}: damaged: not JSON: {error}") from None
        if not isinstance(manifest, dict):
            raise ConfigError(f"{self.path / MANIFEST}: damaged: not a JSON object")
        return manifest

    def _read(self, name: str) -> str:
        path = self.path / name
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: damaged: not UTF-8 text") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text)


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all.  Raises `ConfigError` if that cannot be done."""
    with _written(path), deferred_interrupt():  # Or the file might stay under its other name.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class Recorder:
    """An observer between the runner and the view."""

    def __init__(self, log: TextIO, inner: Observer, rows: list[SeriesRow]) -> None:
        self.rows: Final = rows
        self._log: TextIO | None = log
        self._inner = inner
        self._started_s = time.monotonic()

    def phase(self, text: str) -> None:
        """Log that a phase began."""
        self._append("phase", text)
        self._inner.phase(text)

    def sample(self, row: SeriesRow) -> None:
        """Keep the row."""
        self.rows.append(row)
        self._inner.sample(row)

    def event(self, text: str) -> None:
        """Log what happened."""
        self._append("event", text)
        self._inner.event(text)

    def failed(self, error: RunFailed) -> None:
        """Log why the run failed, with the tracebacks that came with it."""
        self._append("failure", "\n".join([str(error), *getattr(error, "__notes__", [])]))

    def _append(self, kind: str, text: str) -> None:
        if self._log is None:
            return
        elapsed_s = round(time.monotonic() - self._started_s, 6)
        entry = {"wall_s": elapsed_s, "kind": kind, "text": text}
        try:
            self._log.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError:  # A full disk must not end the run; writing the summary will say so.
            self._log = None


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
