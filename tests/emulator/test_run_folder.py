import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from emulator.errors import ConfigError
from emulator.observer import NullObserver
from emulator.run_folder import LOG, MANIFEST, SCENARIO, SERIES, SUMMARY, RunFolder
from emulator.summary import SeriesRow
from tests.support.sample_run import sample_scenario, sample_summary

NOW = datetime(2025, 11, 21, 0, 28, 5, tzinfo=UTC)
ROWS = [SeriesRow(time_s=0.0, resident_bytes=4096), SeriesRow(time_s=0.1)]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complete(folder: RunFolder) -> RunFolder:
    folder.write_scenario(sample_scenario())
    folder.write_manifest(seed=1, started=NOW)
    with folder.recording(NullObserver()) as recorder:
        recorder.phase("fill")
        for row in ROWS:
            recorder.sample(row)
        recorder.event("vCPU 1 was killed")
    folder.write_summary(sample_summary())
    return folder


def test_a_folder_is_named_by_time_in_utc_and_scenario() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert RunFolder.create(None, "memhog", elsewhere).path == Path("runs/20251121T002805Z-memhog")


def test_runs_in_one_second_get_folders_of_their_own() -> None:
    paths = [RunFolder.create(None, "memhog", NOW).path.name for _ in range(3)]
    assert paths == [f"20251121T002805Z-memhog{end}" for end in ("", "-2", "-3")]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder.open(complete(RunFolder.create(Path("new/deep"), "x", NOW)).path)
    scenario = folder.read_scenario()
    assert scenario.guest == sample_scenario().guest
    assert scenario.expect == sample_scenario().expect
    assert scenario.name == "memhog"
    assert folder.read_summary() == sample_summary()
    assert folder.read_series() == ROWS
    manifest = folder.read_manifest()
    assert manifest["started_utc"] == "2025-11-21T00:28:05+00:00"
    assert manifest["seed"] == 1 and isinstance(manifest["argv"], list)
    assert {"python", "numpy", "numba", "trio", "free-page-lab"} <= manifest["versions"].keys()
    assert manifest["machine"]["cpus"] >= 1 and manifest["machine"]["memory_bytes"] > 1 << 20
    assert manifest["machine"]["kernel"] and manifest["machine"]["cpu_model"]
    log = [json.loads(line) for line in (folder.path / LOG).read_text().splitlines()]
    assert [(e["kind"], e["text"]) for e in log] == [
        ("phase", "fill"),
        ("event", "vCPU 1 was killed"),
    ]


def test_nothing_else_is_left_in_the_folder() -> None:
    folder = complete(RunFolder.create(None, "memhog", NOW))
    folder.write_summary(sample_summary())
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(
        [SCENARIO, MANIFEST, LOG, SERIES, SUMMARY]
    )


def test_the_samples_of_a_run_that_failed_are_kept() -> None:
    folder = RunFolder.create(None, "memhog", NOW)
    with pytest.raises(ZeroDivisionError), folder.recording(NullObserver()) as recorder:
        recorder.sample(ROWS[0])
        recorder.sample(SeriesRow(time_s=1 / len(recorder.rows[1:])))
    assert folder.read_series() == ROWS[:1]


def test_a_folder_that_holds_a_run_is_not_overwritten() -> None:
    complete(RunFolder.create(Path("out"), "x", NOW))
    before = Path("out", SUMMARY).read_bytes()
    with pytest.raises(ConfigError, match=r"^out: holds a run already \(log\.jsonl\); give"):
        RunFolder.create(Path("out"), "x", NOW)
    assert Path("out", SUMMARY).read_bytes() == before


def test_an_existing_folder_with_other_files_is_used_and_kept() -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    folder = complete(RunFolder.create(Path("out"), "x", NOW))
    folder.discard()
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_a_discarded_folder_is_gone() -> None:
    folder = complete(RunFolder.create(None, "memhog", NOW))
    folder.discard()
    assert not folder.path.exists()


@pytest.mark.parametrize("output", [Path("file/below"), Path("file"), Path("/proc/nothing")])
def test_a_folder_that_cannot_be_written_is_one_line(output: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(ConfigError, match=rf"^{output}: cannot be written: [^\n]+$"):
        RunFolder.create(output, "x", NOW)


def test_runs_that_is_a_file_is_one_line() -> None:
    Path("runs").write_text("")
    with pytest.raises(ConfigError, match=r"^runs: cannot be written: File exists$"):
        RunFolder.create(None, "x", NOW)


def test_a_write_that_fails_leaves_nothing_behind() -> None:
    folder = RunFolder.create(Path("out"), "x", NOW)
    Path("out", SUMMARY).mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        folder.write_summary(sample_summary())
    assert [path.name for path in Path("out").iterdir()] == [SUMMARY]


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([], r"has no summary\.json: this is not a run folder"),
        ([MANIFEST], r"has no summary\.json: the run did not end"),
        ([MANIFEST, SUMMARY], r"has no scenario\.toml: the run did not end"),
    ],
)
def test_a_folder_without_a_whole_run_says_why(present: list[str], message: str) -> None:
    Path("out").mkdir()
    for name in present:
        Path("out", name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"^out: {message}$"):
        RunFolder.open(Path("out"))
    with pytest.raises(ConfigError, match=r"^nowhere: no such run folder$"):
        RunFolder.open(Path("nowhere"))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (SCENARIO, RunFolder.read_scenario),
        (SUMMARY, RunFolder.read_summary),
        (SERIES, RunFolder.read_series),
        (MANIFEST, RunFolder.read_manifest),
    ],
)
@pytest.mark.parametrize("content", [b"\xff", b"[", b"[]", b"", b'"text"'])
def test_a_damaged_file_is_named_in_one_line(
    name: str, read: Callable[[RunFolder], object], content: bytes
) -> None:
    folder = complete(RunFolder.create(Path("out"), "x", NOW))
    Path("out", name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read(folder)
    assert str(raised.value).startswith(f"out/{name}: ")
    assert "\n" not in str(raised.value)
    Path("out", name).unlink()
    with pytest.raises(ConfigError, match=rf"^out/{name}: cannot be read: No such file"):
        read(folder)
