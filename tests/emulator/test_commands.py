"""The commands as a user meets them, without a run: whole runs are tests/processes/'s."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from devices.balloon.features import FEATURES
from emulator.commands.application import cli
from emulator.commands.options import overrides
from emulator.commands.registries import first_line, managers, mechanisms, workloads
from emulator.commands.table import aligned, table_lines
from emulator.config.scenario import ROOT, load_scenario, scenario_names
from emulator.serve.service_task import FEATURES_DEFAULT
from tests.support.sample_run import sample_folder, sample_scenario

SMALL = """
question = "Why?"
[guest]
memory = "64MiB"
vcpus = 2
[mechanism]
name = "off"
[workload]
kind = "memhog"
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="emulator")


def run_program(
    *arguments: str, files_max: int | None = None
) -> "subprocess.CompletedProcess[str]":
    def limit() -> None:
        if files_max is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=limit,
    )


def assert_refused(result: Result, message: str, exit_code: int = 2) -> None:
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    *usage, last = result.stderr.splitlines()
    assert last.startswith("Error: ") and message in last
    assert all(line.startswith(("Usage: ", "Try ")) or not line for line in usage)
    assert list(Path.cwd().glob("runs/*")) == []


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    readme = (ROOT / "README.md").read_text()
    for command in cli.commands:
        assert f"\n  {command} " in result.stdout
        assert f"\n    python -m emulator {command} " in readme
        assert invoke(command, "--help").exit_code == 0


def test_the_help_names_the_features_that_can_be_offered() -> None:
    shown = " ".join(invoke("vhost-user", "--help").stdout.split())
    assert f"A feature to offer: {', '.join(FEATURES)}; repeatable" in shown
    assert set(FEATURES) - set(FEATURES_DEFAULT) == {"free_page_hint", "page_poison"}


def test_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, emulator.commands.application as a; a.cli(['scenario', '--help'], 'x', "
        "standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    )
    loaded = run_program("-c", code).stderr.split()
    assert "click" in loaded
    assert not {"numba", "numpy", "trio", "matplotlib", "rich"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenario", "memhgo"], "memhgo: no such scenario; did you mean 'memhog'?"),
        (["scenario", "no.toml"], "no.toml: no such scenario file"),
        (["scenario", "--vcpus", "0"], "0 is not in the range 1<=x<=64"),
        (["scenario", "--memory", "4MB"], "'4MB' is not a size: write it like"),
        (["scenario", "--memory", "5M"], "--set guest.memory: 5MiB is not a multiple of 4MiB"),
        (["scenario", "--launcher", "threads"], "'threads' is not one of"),
        (["scenario", "--seed", "-1"], "-1 is not in the range x>=0"),
        (["scenario", "--set", "guest.vcpus"], "--set guest.vcpus: write it as KEY=VALUE"),
        (["scenario", "--set", "guest.vcpu=1"], "did you mean 'vcpus'?"),
        (["scenario", "--set", "run.sample=0s"], "--set run.sample: 0.0s will not do"),
        (["scenario", "--nonsense"], "No such option"),
        (["scale"], "Missing argument 'SCENARIO'"),
        (["scale", "memhog", "--vcpus", "1,two"], "'1,two': write numbers from 1 to 64 like"),
        (["scale", "memhog", "--repeat", "0"], "0 is not in the range"),
        (["replay"], "Missing argument 'TRACE'"),
        (["replay", "no.trace"], "'no.trace' does not exist"),
        (["report"], "Missing argument 'DIR...'"),
        (["report", "nowhere"], "nowhere: no such run folder"),
        (["report", "."], ".: has no summary.json: this is not a run folder"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    assert_refused(invoke(*arguments), message)


def test_options_are_overrides_and_set_comes_last() -> None:
    assert overrides(
        ("guest.vcpus=4",), mechanism='a"b', vcpus=2, memory="4G", launcher="virtual", seed=7
    ) == [
        'mechanism.name="a\\"b"',
        'guest.memory="4G"',
        'run.launcher="virtual"',
        "guest.vcpus=2",
        "run.seed=7",
        "guest.vcpus=4",
    ]


def test_a_mechanism_is_named_with_its_parameters_as_in_a_comparison() -> None:
    settings = overrides(("mechanism.delay=1s",), mechanism="page_reporting(order=0, delay=100ms)")
    assert settings == [
        'mechanism.name="page_reporting"',
        "mechanism.order=0",
        "mechanism.delay=100ms",
        "mechanism.delay=1s",
    ]
    scenario = load_scenario("trickle", settings)
    assert scenario.mechanism.parameters == {"order": 0, "delay": "1s"}
    assert overrides(()) == []


def test_scenario_names_are_completed() -> None:
    environment = {"_EMULATOR_COMPLETE": "bash_complete"}
    for words, wanted in (
        ("emulator scenario mem", "plain,memhog"),
        ("emulator sca", "plain,scale"),
    ):
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        result = CliRunner().invoke(cli, [], prog_name="emulator", env=environment)
        assert wanted in result.stdout.splitlines()


def test_report_shows_a_run_again_and_writes_its_page() -> None:
    sample_folder(Path("met"), scenario=load_scenario("page_fault1"))
    result = invoke("report", "met")
    assert result.exit_code == 0, result.output
    assert result.stderr == "Wrote met/report.html\n"
    assert "page_reporting" in result.stdout
    page = Path("met/report.html").read_bytes()
    assert page.lower().startswith(b"<!doctype html>")


def test_report_of_several_runs_writes_one_page_and_exits_1_if_one_missed() -> None:
    sample_folder(Path("met"), scenario=load_scenario("page_fault1"))
    sample_folder(Path("missed"), scenario=sample_scenario())
    result = invoke("report", "met", "missed", "--html", "both.html")
    assert result.exit_code == 1, result.output
    assert result.stderr == "Wrote both.html\n"
    assert Path("both.html").is_file()


@pytest.mark.parametrize("name", ["summary.json", "scenario.toml", "series.csv"])
def test_a_damaged_run_folder_is_one_line(name: str) -> None:
    sample_folder(Path("out"))
    Path("out", name).write_text("{")
    result = invoke("report", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: out/{name}: ") and result.stderr.count("\n") == 1


def test_sysinfo_shows_every_check_and_exits_0_or_3() -> None:
    result = invoke("sysinfo")
    assert result.exit_code == (3 if "MISSING" in result.stdout else 0)
    assert "punch hole" in result.stdout


def test_sysinfo_names_what_is_missing_and_the_remedy() -> None:
    result = run_program("-m", "emulator", "sysinfo", files_max=64)
    assert result.returncode == 3
    line = next(line for line in result.stdout.splitlines() if line.startswith("limit of open"))
    assert line.endswith("MISSING: needs 256: ulimit -n 1024")
    assert result.stderr == "No run is possible: limit of open files.\n"


def test_a_reader_that_went_away_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "emulator", "sysinfo"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "emulator", "sysinfo"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert result.returncode == 2
    assert result.stderr == b"Error: the output cannot be written: No space left on device\n"


def test_first_lines_are_read_without_importing() -> None:
    assert first_line("emulator.config.scenario:Scenario").startswith("A scenario: what is run")


def test_list_has_a_line_for_everything() -> None:
    result = invoke("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        *("Scenarios", "Mechanisms", "Workloads", "Balloon managers")
    ]
    listed = [line.split(maxsplit=1) for line in lines if line.startswith(" ")]
    assert all(len(words) == 2 for words in listed)
    names = [name for name, _ in listed]
    assert names == [*scenario_names(), *mechanisms(), *workloads(), *managers()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mechanism", "page_reportin"], "no mechanism 'page_reportin'; did you mean 'page_rep"),
        (["--mechanism", "no.py:Mine"], "no.py: cannot be read: No such file or directory"),
        (["--mechanism", "mine.py:Mien"], "mine.py: no class 'Mien'; did you mean 'Mine'?"),
        (["--mechanism", "bad.py:Mine"], "bad.py: not Python: "),
        (["--mechanism", "off(order"], "write NAME, FILE.py:CLASS or NAME(KEY=VALUE,...)"),
        (["--set", "workload.kind=memhgo"], "no workload 'memhgo'; did you mean 'memhog'?"),
        (["--set", "balloon.manager.name=wve"], "no balloon manager 'wve'; did you mean 'wave'?"),
        (["--memory", "1048576G"], "of real pages do not fit"),
        (["--set", "expect.1.metric=oracle.violation"], "did you mean 'violations'?"),
    ],
)
def test_what_can_be_known_before_a_run_is_refused_before_it(
    arguments: list[str], message: str
) -> None:
    Path("mine.py").write_text("class Mine: pass")
    Path("bad.py").write_text("class")
    assert_refused(invoke("scenario", *arguments), message)
    if arguments[0] == "--mechanism":
        assert_refused(invoke("scale", "memhog", *arguments), message)


def test_scale_refuses_parameters_that_a_mechanism_does_not_have() -> None:
    refused = invoke("scale", "memhog", "--mechanism", "page_reporting(ordr=0)")
    assert_refused(refused, "--mechanism page_reporting.ordr: unknown key; did you mean 'order'?")


def test_a_table_has_a_column_for_every_key() -> None:
    rows: list[dict[str, object]] = [
        {"name": "a", "figure": 1.23456},
        {"name": "long", "figure": None, "more": 70000.5},
    ]
    assert table_lines(rows) == [
        "name  figure   more",
        "a      1.235      -",
        "long       -  70000",
    ]
    assert aligned([("a", "b")]) == ["a  b"]


def test_every_scenario_is_named_as_a_file_can_be() -> None:
    assert {"churn", "memhog", "page_fault1", "replay"} <= set(scenario_names())
