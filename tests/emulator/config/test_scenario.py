import string
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.balloon import BalloonConfig, ManagerConfig
from emulator.config.cost import CostConfig
from emulator.config.expectations import Expectation
from emulator.config.guest import GuestConfig, ZoneConfig
from emulator.config.requirements import require_memory
from emulator.config.scenario import (
    SCENARIOS,
    MechanismConfig,
    RunConfig,
    Scenario,
    WorkloadConfig,
    decode_scenario,
    load_scenario,
    scenario_names,
    to_toml,
    with_mechanism,
)
from emulator.errors import ConfigError

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


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", scenario_names())
def test_shipped_scenarios_load_and_ask_first(name: str) -> None:
    document = tomllib.loads((SCENARIOS / f"{name}.toml").read_text())
    assert next(iter(document)) == "question"
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.source == f"scenarios/{name}.toml"
    assert any(e.metric == "oracle.violations" and e.equals == 0 for e in scenario.expect)


def test_the_scenario_of_the_design_reads_as_written() -> None:
    scenario = load_scenario("memhog")
    assert scenario.guest == GuestConfig(memory_bytes=1 << 30, vcpus=2, ram="memfd")
    assert scenario.mechanism == MechanismConfig(
        name="page_reporting", parameters={"order": 9, "delay": "2s"}
    )
    assert scenario.workload.kind == "memhog"
    assert scenario.workload.parameters["fraction"] == 0.95
    assert scenario.run.launcher == "processes" and scenario.run.sample_s == 0.1
    assert scenario.expect[0] == Expectation(metric="host.resident_bytes_end", at_most=200 << 20)


def test_defaults(small: Path) -> None:
    scenario = load_scenario(small)
    assert scenario.name == "small"
    assert scenario.guest.ram == "memfd"
    assert scenario.guest.pageblock_order == 9 and scenario.guest.thp
    assert scenario.guest.all_zones == (ZoneConfig(name="NORMAL", memory_bytes=64 << 20),)
    assert scenario.guest.pages == 16384
    assert scenario.run == RunConfig(launcher="processes", seed=1, sample_s=0.1, time_limit_s=None)


def test_overrides_reach_every_key(small: Path) -> None:
    scenario = load_scenario(
        small,
        [
            "guest.vcpus=8",
            "guest.memory=128M",
            "guest.thp=false",
            "run.time_limit=90s",
            "mechanism.name=page_reporting",
            "mechanism.delay=250ms",
            "expect.0.metric=host.cpu_s",
            "expect.0.at_most=2s",
        ],
    )
    assert scenario.guest == GuestConfig(memory_bytes=128 << 20, vcpus=8, thp=False)
    assert scenario.run.time_limit_s == 90.0
    assert scenario.mechanism.parameters == {"delay": "250ms"}
    assert scenario.expect == (Expectation(metric="host.cpu_s", at_most=2),)


def test_zones_and_watermarks(small: Path) -> None:
    with small.open("a") as file:
        file.write(
            """
            [[guest.zones]]
            name = "DMA32"
            memory = "16MiB"
            reserved = "1MiB"
            watermark_min = 64
            watermark_low = "1MiB"
            [[guest.zones]]
            name = "NORMAL"
            memory = "48MiB"
            """
        )
    dma32, normal = load_scenario(small).guest.all_zones
    assert dma32.reserved_bytes == 1 << 20
    assert (dma32.watermark_min, dma32.watermark_low, dma32.watermark_high) == (64, 256, None)
    assert normal == ZoneConfig(name="NORMAL", memory_bytes=48 << 20)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guest.memory=0", "--set guest.memory: 0 is not a multiple of 4MiB above 0"),
        ("guest.memory=6M", "--set guest.memory: 6MiB is not a multiple of 4MiB above 0"),
        ("guest.memory=-4M", "--set guest.memory: '-4M' is not a size"),
        ("guest.vcpus=0", "--set guest.vcpus: 0 will not do; use 1 to 64"),
        ("guest.vcpus=65", "--set guest.vcpus: 65 will not do; use 1 to 64"),
        ("guest.vcpus=two", "--set guest.vcpus: 'two' will not do: expected int, got str"),
        ("guest.ram=swap", "--set guest.ram: 'swap' will not do; use one of: memfd, accounted"),
        (
            "guest.pageblock_order=8",
            "--set guest.pageblock_order: 8 will not do; use one of: 9, 10",
        ),
        ("guest.memroy=1", "--set guest.memroy: unknown key; did you mean 'memory'?"),
        ("run.launcher=thread", "--set run.launcher: 'thread' will not do; use one of: proc"),
        ("run.seed=-1", "--set run.seed: -1 will not do; use 0 to"),
        ("run.sample=0", "--set run.sample: 0.0s will not do; use 1ms or more"),
        ("run.time_limit=0", "--set run.time_limit: must be above 0"),
        ("mechanism.name=3", "--set mechanism.name: missing or empty"),
        ("workload.kind=", "--set workload.kind: missing or empty"),
        ("gest.x=1", "SMALL: gest: unknown key; did you mean 'guest'?"),
        ("guest=1", "SMALL: guest: must be a table, not 1"),
        ("question=", "--set question: missing"),
        ("name=../x", "--set name: '../x' will not do"),
        ("expect=1", "--set expect: must be a list of tables"),
    ],
)
def test_a_bad_value_is_one_line_that_names_key_and_remedy(
    small: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_scenario(small, [override])
    expected = message.replace("SMALL", str(small))
    if override == "guest=1":  # The key itself was set.
        expected = "--set guest: must be a table, not 1"
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ([("A", "32MiB", {})], "guest.zones: they hold 32MiB in sum, and guest.memory is 64MiB"),
        ([("A", "32MiB", {}), ("A", "32MiB", {})], "guest.zones: names must differ: A, A"),
        ([("", "64MiB", {})], "guest.zones.0.name: must not be empty"),
        ([("A", "64MiB", {"reserved": "64MiB"})], "guest.zones.0.reserved: 64MiB must be"),
        ([("A", "64MiB", {"watermark_min": "x"})], "guest.zones.0.watermark_min: 'x' is not a"),
        (
            [("A", "64MiB", {"watermark_min": 9, "watermark_high": 8})],
            "guest.zones.0.watermark_min: min, low and high must ascend",
        ),
    ],
)
def test_bad_zones_are_refused(zones: list[tuple[str, str, Any]], message: str) -> None:
    document = tomllib.loads(SMALL)
    document["guest"]["zones"] = [{"name": n, "memory": m, **more} for n, m, more in zones]
    with pytest.raises(ConfigError) as raised:
        decode_scenario(document, name="x", source="x")
    assert str(raised.value).startswith(message)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    for content, message in (
        (b"question = ", "not a TOML file: Invalid value"),
        (b"\xff\xfe", "not a TOML file: it is not UTF-8"),
        (b"", "question: missing"),
        (b"question = 'Why?'", "mechanism: missing"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            load_scenario(path)
        assert str(raised.value).startswith(f"{path}: {message}")
        assert "\n" not in str(raised.value)


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^memhgo: no such scenario; did you mean 'memhog'\?"):
        load_scenario("memhgo")
    with pytest.raises(ConfigError, match=r"^nowhere/x\.toml: no such scenario file$"):
        load_scenario("nowhere/x.toml")


def test_file_names_are_relative_to_the_file_or_to_the_current_folder(small: Path) -> None:
    small.write_text(SMALL.replace('"memhog"', '"replay"\ntrace = "data/t.zst"'))
    scenario = load_scenario(small)
    assert scenario.workload.parameters["trace"] == str(small.parent / "data/t.zst")
    scenario = load_scenario(small, ["workload.trace=t.txt", "mechanism.name=mine.py:Mine"])
    assert scenario.workload.parameters["trace"] == str(Path.cwd() / "t.txt")
    assert scenario.mechanism.name == f"{Path.cwd() / 'mine.py'}:Mine"


def test_memory_that_does_not_fit_is_refused_unless_accounted(small: Path) -> None:
    scenario = load_scenario(small)
    require_memory(scenario, available_bytes=64 << 20)
    with pytest.raises(
        ConfigError, match=r"guest\.memory: 64MiB of real .* use --memory 44MiB, or"
    ):
        require_memory(scenario, available_bytes=(64 << 20) - 1)
    require_memory(load_scenario(small, ["guest.ram=accounted"]), available_bytes=0)


def test_another_mechanism_has_its_own_parameters() -> None:
    scenario = load_scenario("memhog")
    assert with_mechanism(scenario, "page_reporting") is scenario
    assert with_mechanism(scenario, "balloon").mechanism == MechanismConfig(name="balloon")


_NAMES = st.text(string.ascii_letters + string.digits + "-_", min_size=1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = _TEXT | st.integers(0, 1 << 60) | st.floats(allow_nan=False) | st.booleans()
_PARAMETERS = st.dictionaries(_NAMES.filter(lambda k: k not in ("name", "kind", "trace")), _VALUES)


@given(
    st.builds(
        Scenario,
        question=_TEXT.filter(str.strip),
        name=_NAMES,
        source=st.just("s"),
        guest=st.builds(
            GuestConfig,
            memory_bytes=st.integers(1, 1 << 20).map(lambda blocks: blocks << 22),
            vcpus=st.integers(1, 64),
            ram=st.sampled_from(["memfd", "accounted"]),
            pageblock_order=st.sampled_from([9, 10]),
            thp=st.booleans(),
        ),
        mechanism=st.builds(MechanismConfig, name=_NAMES, parameters=_PARAMETERS),
        workload=st.builds(WorkloadConfig, kind=_NAMES, parameters=_PARAMETERS),
        run=st.builds(
            RunConfig,
            launcher=st.sampled_from(["processes", "virtual"]),
            seed=st.integers(0, (1 << 63) - 1),
            sample_s=st.floats(0.001, 1e6),
            time_limit_s=st.none() | st.floats(0, 1e6, exclude_min=True),
        ),
        expect=st.lists(st.builds(Expectation, metric=_NAMES, at_most=st.floats(-1e9, 1e9))).map(
            tuple
        ),
    )
)
def test_a_written_scenario_loads_as_the_same(scenario: Scenario) -> None:
    read = decode_scenario(tomllib.loads(to_toml(scenario)), name="other", source="s")
    assert read == scenario


def test_zones_survive_writing() -> None:
    zones = (
        ZoneConfig(name="DMA32", memory_bytes=4 << 20, reserved_bytes=8192, watermark_min=5),
        ZoneConfig(name="NORMAL", memory_bytes=60 << 20),
    )
    scenario = decode_scenario(tomllib.loads(SMALL), name="x", source="x")
    guest = GuestConfig(memory_bytes=64 << 20, vcpus=2, zones=zones)
    scenario = msgspec.structs.replace(scenario, guest=guest)
    assert decode_scenario(tomllib.loads(to_toml(scenario)), name="x", source="x") == scenario


BALLOON = """
[balloon]
deflate_on_oom = false
every = "500ms"
[balloon.manager]
name = "steps"
[[balloon.manager.steps]]
at = "2s"
memory = "16MiB"
"""


def test_a_balloon_is_read_with_its_manager_and_written_back() -> None:
    scenario = decode_scenario(tomllib.loads(SMALL + BALLOON), name="x", source="x")
    steps = [{"at": "2s", "memory": "16MiB"}]
    manager = ManagerConfig(name="steps", parameters={"steps": steps})
    expected = BalloonConfig(deflate_on_oom=False, every_s=0.5, manager=manager)
    assert scenario.balloon == expected
    again = decode_scenario(tomllib.loads(to_toml(scenario)), name="x", source="x")
    assert again == scenario


def test_no_balloon_and_a_balloon_by_default_are_two_things() -> None:
    without = decode_scenario(tomllib.loads(SMALL), name="x", source="x")
    assert without.balloon is None
    assert "balloon" not in to_toml(without)
    default = decode_scenario(tomllib.loads(SMALL + "[balloon]"), name="x", source="x")
    assert default.balloon == BalloonConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("balloon = 3", "balloon: must be a table, with a table balloon.manager in it"),
        ("[balloon]\nmanager = 3", "balloon.manager: missing; the table must be given"),
        ("[balloon]\n[balloon.manager]", "balloon.manager.name: missing or empty"),
        ("[balloon]\nevry = 3", "balloon.evry: unknown key; did you mean 'every'"),
        ('[balloon]\nevery = "0s"', "balloon.every: must be 1ms or more, and so must statistics"),
    ],
)
def test_a_bad_balloon_is_named(text: str, message: str) -> None:
    # A bare key belongs before the first table.
    document = f"{text}\n{SMALL}" if text.startswith("balloon =") else SMALL + text
    with pytest.raises(ConfigError, match=f"^{message}"):
        decode_scenario(tomllib.loads(document), name="x", source="x")


def test_prices_are_read_and_written_and_left_out() -> None:
    document = tomllib.loads(SMALL)
    assert decode_scenario(document, name="x", source="x").cost is None
    document["cost"] = {}
    assert decode_scenario(document, name="x", source="x").cost == CostConfig()
    document["cost"] = {"host_fault": "2.5us", "list_step": "155ns"}
    scenario = decode_scenario(document, name="x", source="x")
    assert scenario.cost == CostConfig(host_fault_s=2.5e-6)
    assert decode_scenario(tomllib.loads(to_toml(scenario)), name="x", source="x") == scenario


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"host_falt": "1us"}, "cost.host_falt: unknown key; did you mean 'host_fault'?"),
        ({"exit": "-1us"}, "cost.exit: '-1us' is not a time: it must not be negative"),
        ({}, "cost: in virtual time, faults are counted in accounted RAM only; use --set guest"),
    ],
)
def test_bad_prices_are_refused(cost: dict[str, str], message: str) -> None:
    document = tomllib.loads(SMALL) | {"cost": cost, "run": {"launcher": "virtual"}}
    with pytest.raises(ConfigError) as raised:
        decode_scenario(document, name="x", source="x")
    assert str(raised.value).startswith(message)
