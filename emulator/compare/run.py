"""All runs of a comparison, one after the other, each in its own run folder beneath the output.

A mechanism whose run fails is not run again, and the others go on; without the baseline there is
nothing to compare with, and so its failure ends the comparison.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from emulator.compare.candidate import Candidate
from emulator.compare.comparison import MadeRun
from emulator.compare.design import PlannedRun
from emulator.compare.process import run_apart
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError, MachineLacks, MechanismFailed, RunFailed
from emulator.observer import Observer
from emulator.report.wording import duration_text
from emulator.run_folder import RunFolder
from emulator.summary import SeriesRow

Views = Callable[[], AbstractContextManager[Observer]]


def make_runs(
    scenario: Scenario,
    candidates: Sequence[Candidate],
    planned: Sequence[PlannedRun],
    *,
    folder: Path,
    views: Views,
    made: list[MadeRun],
) -> None:
    """Make the planned runs and append each to `made` as it ends, so that what was made remains
    when this is interrupted.  `views` makes the view of one run.

    Raises what `emulator.runner.run` raises: if the machine lacks something, or for the baseline.
    """
    began_s = time.monotonic()
    failed: set[int] = set()
    for number, run in enumerate(planned):
        if run.treatment in failed:
            continue
        label = candidates[run.treatment].label
        left = _time_left(time.monotonic() - began_s, number, len(planned))
        progress = f"run {run.position} of {len(planned)}{left}, {label}"
        path = folder / folder_name(run, label)
        with views() as view:
            try:
                made.append(_make(scenario, candidates, run, path, _Progress(view, progress)))
            except (ConfigError, RunFailed) as error:
                if run.treatment == 0:
                    raise type(error)(f"{progress}: {error}") from None
                failed.add(run.treatment)
                made.append(MadeRun(planned=run, folder=path, failure=str(error)))
                view.event(f"{progress} failed and is left out from here on: {error}")


def scenario_of(scenario: Scenario, candidate: Candidate, run: PlannedRun) -> Scenario:
    """The scenario of one run: with its mechanism and seed, and without expectations, which are
    about the mechanism that the file names."""
    return msgspec.structs.replace(
        scenario,
        mechanism=candidate.mechanism,
        run=msgspec.structs.replace(scenario.run, seed=run.seed),
        expect=(),
    )


def folder_name(run: PlannedRun, label: str) -> str:
    """The name of a run's folder: its position, repeat and mechanism."""
    words = re.sub(r"[^\w.-]+", "-", label.rpartition("/")[2]).strip("-.")
    return f"{run.position:03d}-repeat-{run.repeat + 1}-{words[:60]}"


def _make(
    scenario: Scenario,
    candidates: Sequence[Candidate],
    run: PlannedRun,
    path: Path,
    view: Observer,
) -> MadeRun:
    own = scenario_of(scenario, candidates[run.treatment], run)
    started = datetime.now(UTC)
    folder = RunFolder.create(path, own.name, started)
    folder.write_scenario(own)
    folder.write_manifest(seed=run.seed, started=started)
    view.phase("loading")
    began = False
    try:
        with folder.recording(view) as recorder:
            try:
                summary = run_apart(own, output=folder.path, observer=recorder)
            finally:
                began = bool(recorder.rows)
    except (ConfigError, MachineLacks) as error:
        if (not began or isinstance(error, MechanismFailed)) and run.treatment == 0:
            folder.discard()
        raise
    folder.write_summary(summary)
    return MadeRun(planned=run, folder=path, summary=summary)


def _time_left(spent_s: float, done: int, planned: int) -> str:
    if not done:
        return ""
    return f" (about {duration_text(max(1.0, round(spent_s / done * (planned - done))))} left)"


class _Progress:
    """Passes everything on, with how far the comparison is before each phase."""

    def __init__(self, view: Observer, progress: str) -> None:
        self._view = view
        self._progress = progress

    def phase(self, text: str) -> None:
        """With the progress before it."""
        self._view.phase(f"{self._progress}: {text}")

    def sample(self, row: SeriesRow) -> None:
        """As it is."""
        self._view.sample(row)

    def event(self, text: str) -> None:
        """As it is."""
        self._view.event(text)
