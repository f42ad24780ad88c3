"""A scenario: what is run and what is expected of it, read strictly from TOML.

    load_scenario("memhog", ["guest.vcpus=8"])    scenarios/memhog.toml, one key changed
    to_toml(scenario)                             the text that repeats the run

Keys carry no units, fields do (`memory = "1GiB"` is `memory_bytes`).  Nothing here looks at the
machine: `requirements` is told what is available.  The parameters of a mechanism or a workload
are kept as they were read; `decode_parameters(cls, config.parameters, where=...)` makes them an
instance of the class that the registries name.

Relative file names are relative to the scenario's file, and those of `--set` to the current
folder; a loaded scenario holds absolute ones.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from emulator.config.balloon import BalloonConfig, decode_balloon, encode_balloon
from emulator.config.capacity import CapacityConfig
from emulator.config.cost import CostConfig
from emulator.config.expectations import Expectation, decode_expectation, encode_expectation
from emulator.config.guest import GuestConfig, decode_guest
from emulator.config.guests import GuestsConfig
from emulator.config.host import HostConfig
from emulator.config.overrides import apply_overrides
from emulator.config.page_cache import PageCacheConfig, decode_page_cache
from emulator.config.parameters import (
    decode_parameters,
    encode_parameters,
    named_table,
    suggest,
)
from emulator.config.published import Published, decode_published, encode_published
from emulator.config.toml import dumps
from emulator.errors import ConfigError

ROOT: Final = Path(__file__).resolve().parents[2]
SCENARIOS: Final = ROOT / "scenarios"
_SAMPLE_S_MIN: Final = 0.001
_SEED_MAX: Final = (1 << 63) - 1


class MechanismConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A mechanism by its registered name, or as `/absolute/file.py:Class`."""

    name: str
    parameters: dict[str, Any] = {}


class WorkloadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A workload by its registered kind."""

    kind: str
    parameters: dict[str, Any] = {}


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is run: by processes in real time, in virtual time from a seed, or by a real Linux."""

    launcher: Literal["processes", "virtual", "uml"] = "processes"
    transport: Literal["shared", "vhost-user"] = "shared"  # Of the queues, between processes.
    seed: int = 1
    sample_s: float = 0.1
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= _SEED_MAX:
            raise ValueError(f"seed: {self.seed} will not do; use 0 to {_SEED_MAX}")
        if self.transport == "vhost-user" and self.launcher == "virtual":
            raise ValueError('transport: vhost-user is for processes; use launcher = "processes"')
        if self.sample_s < _SAMPLE_S_MIN:
            raise ValueError(f"sample: {self.sample_s}s will not do; use 1ms or more")
        if self.time_limit_s is not None and self.time_limit_s <= 0:
            raise ValueError("time_limit: must be above 0; leave the key out for no limit")


class CompareConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `compare` compares where its command line names nothing.

    `mechanisms`: as `--mechanism` takes them, the baseline first.
    """

    mechanisms: tuple[str, ...] = ()


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole scenario.  `name` and `source` come from its file unless the file names itself."""

    question: str
    guest: GuestConfig
    mechanism: MechanismConfig
    workload: WorkloadConfig
    host: HostConfig = HostConfig()
    guests: GuestsConfig = GuestsConfig()
    balloon: BalloonConfig | None = None  # None: the guest has none, unless its mechanism is one.
    page_cache: PageCacheConfig | None = None  # None: by default, if the workload has files.
    run: RunConfig = RunConfig()
    cost: CostConfig | None = None  # None: in virtual time, work costs nothing.
    compare: CompareConfig = CompareConfig()
    capacity: CapacityConfig | None = None  # None: it is not asked for.
    expect: tuple[Expectation, ...] = ()
    published: tuple[Published, ...] = ()
    name: str = "scenario"
    source: str = "scenario"  # The file, as messages name it.

    @property
    def memory_bytes(self) -> int:
        """Of all guests."""
        return self.guests.count * self.guest.memory_bytes

    def where(self, section: str) -> str:
        """What precedes a key of `section` in messages: `scenarios/memhog.toml: mechanism`."""
        return f"{self.source}: {section}"


def load_scenario(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """The scenario of that name in `scenarios/`, or of that file, with keys overridden.

    Raises `ConfigError`: no such scenario, an unreadable file, bad TOML, an unknown key or a bad
    value, naming the file (or `--set`) and the key.
    """
    path = find_scenario(name_or_path)
    source = _shown_path(path)
    document = _read(path, source)
    _resolve_files(document, path.parent)
    overridden = apply_overrides(document, overrides)
    _resolve_files(document, Path.cwd())
    try:
        return decode_scenario(document, name=path.stem, source=source)
    except ConfigError as error:
        key = str(error).partition(": ")[0]
        at = "--set" if key in overridden else f"{source}:"
        raise ConfigError(f"{at} {error}") from None


def decode_scenario(document: dict[str, Any], *, name: str, source: str) -> Scenario:
    """A scenario from what tomllib read.  Raises `ConfigError` naming the key, not the file."""
    rest = dict(document)
    question = rest.pop("question", None)
    if not isinstance(question, str) or not question.strip():
        raise ConfigError("question: missing; the first key asks what the run answers")
    name = rest.pop("name", name)
    if not isinstance(name, str) or not _is_file_name(name):
        raise ConfigError(f"name: {name!r} will not do; use letters, digits, '-', '_' and '.'")
    mechanism_name, mechanism = named_table(rest.pop("mechanism", None), "mechanism", "name")
    workload_kind, workload = named_table(rest.pop("workload", None), "workload", "kind")
    expect, published = _tables(rest, "expect"), _tables(rest, "published")
    guest, host, run = rest.pop("guest", None), rest.pop("host", {}), rest.pop("run", {})
    balloon, cost = rest.pop("balloon", None), rest.pop("cost", None)
    compare, guests = rest.pop("compare", {}), rest.pop("guests", {})
    cache, capacity = rest.pop("page_cache", None), rest.pop("capacity", None)
    if guest is None:
        raise ConfigError("guest: missing; the table must be given with memory and vcpus")
    for key in rest:
        allowed = set(Scenario.__struct_fields__) - {"source"}
        raise ConfigError(f"{key}: unknown key{suggest(key, allowed)}")
    scenario = Scenario(
        question=question,
        guest=decode_guest(guest),
        mechanism=MechanismConfig(name=mechanism_name, parameters=mechanism),
        workload=WorkloadConfig(kind=workload_kind, parameters=workload),
        host=decode_parameters(HostConfig, host, where="host"),
        guests=decode_parameters(GuestsConfig, guests, where="guests"),
        balloon=None if balloon is None else decode_balloon(balloon),
        page_cache=None if cache is None else decode_page_cache(cache),
        run=decode_parameters(RunConfig, run, where="run"),
        cost=None if cost is None else decode_parameters(CostConfig, cost, where="cost"),
        compare=decode_parameters(CompareConfig, compare, where="compare"),
        capacity=None
        if capacity is None
        else decode_parameters(CapacityConfig, capacity, where="capacity"),
        expect=tuple(
            decode_expectation(table, where=f"expect.{index}") for index, table in enumerate(expect)
        ),
        published=tuple(
            decode_published(table, where=f"published.{index}")
            for index, table in enumerate(published)
        ),
        name=name,
        source=source,
    )
    if scenario.cost is not None and scenario.run.launcher == "virtual":
        if scenario.guest.ram != "accounted":
            raise ConfigError(
                "cost: in virtual time, faults are counted in accounted RAM only; use "
                "--set guest.ram=accounted, or leave the table out"
            )
    return scenario


def to_toml(scenario: Scenario) -> str:
    """The scenario as a file with every key given; loading it gives an equal scenario."""
    own = {}  # Tables whose absence has a meaning.
    if scenario.guests != GuestsConfig():
        own["guests"] = encode_parameters(scenario.guests)
    if scenario.balloon is not None:
        own["balloon"] = encode_balloon(scenario.balloon)
    if scenario.page_cache is not None:
        own["page_cache"] = encode_parameters(scenario.page_cache)
    if scenario.cost is not None:
        own["cost"] = encode_parameters(scenario.cost)
    if scenario.compare.mechanisms:
        own["compare"] = encode_parameters(scenario.compare)
    if scenario.capacity is not None:
        own["capacity"] = encode_parameters(scenario.capacity)
    return dumps(
        {
            "question": scenario.question,
            "name": scenario.name,
            "guest": encode_parameters(scenario.guest),
            "mechanism": {"name": scenario.mechanism.name, **scenario.mechanism.parameters},
            "workload": {"kind": scenario.workload.kind, **scenario.workload.parameters},
            "host": encode_parameters(scenario.host),
            "run": encode_parameters(scenario.run),
            **own,
            "expect": [encode_expectation(e) for e in scenario.expect],
            "published": [encode_published(p) for p in scenario.published],
        }
    )


def with_mechanism(scenario: Scenario, name: str) -> Scenario:
    """The scenario under another mechanism, with that one's default parameters."""
    if name == scenario.mechanism.name:
        return scenario
    return msgspec.structs.replace(scenario, mechanism=MechanismConfig(name=name))


def find_scenario(name_or_path: str | Path) -> Path:
    """The file of a scenario.  Raises `ConfigError` if there is none."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix == ".toml" or len(path.parts) != 1:
        if not path.is_file():
            raise ConfigError(f"{text}: no such scenario file")
        return path
    known = scenario_names()
    if text not in known:
        raise ConfigError(f"{text}: no such scenario{suggest(text, known)}, or a FILE.toml")
    return SCENARIOS / f"{text}.toml"


def scenario_names() -> list[str]:
    """The names of the scenarios in `scenarios/`, sorted."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def _tables(document: dict[str, Any], key: str) -> list[Any]:
    tables = document.pop(key, [])
    if not isinstance(tables, list):
        raise ConfigError(f"{key}: must be a list of tables, each begun by [[{key}]]")
    return tables


def _read(path: Path, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: not a TOML file: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not a TOML file: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None


def _resolve_files(document: dict[str, Any], folder: Path) -> None:
    """Make file names in a document absolute: the trace, a mechanism or manager of one's own."""
    workload, balloon = document.get("workload"), document.get("balloon")
    if isinstance(workload, dict) and isinstance(workload.get("trace"), str):
        workload["trace"] = str((folder / workload["trace"]).resolve())
    manager = balloon.get("manager") if isinstance(balloon, dict) else None
    for named in (document.get("mechanism"), manager):
        if isinstance(named, dict) and isinstance(named.get("name"), str):
            file, colon, cls = named["name"].rpartition(":")
            if colon:
                named["name"] = f"{(folder / file).resolve()}:{cls}"


def _shown_path(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _is_file_name(name: str) -> bool:
    return bool(name) and name[0] != "." and all(c.isalnum() or c in "-_." for c in name)
