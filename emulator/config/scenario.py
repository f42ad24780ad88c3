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
from emulator.config.cost import CostConfig
from emulator.config.expectations import Expectation, decode_expectation, encode_expectation
from emulator.config.guests import GuestsConfig
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
from emulator.config.units import PAGE_BYTES, size_bytes, write_size
from emulator.errors import ConfigError

ROOT: Final = Path(__file__).resolve().parents[2]
SCENARIOS: Final = ROOT / "scenarios"
LARGEST_BLOCK_BYTES: Final = PAGE_BYTES << 10  # Order 10, the largest of the buddy allocator.
VCPUS_MAX: Final = 64
_SAMPLE_S_MIN: Final = 0.001
_SEED_MAX: Final = (1 << 63) - 1


class ZoneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One memory zone of the guest; the zones follow each other from page frame 0."""

    name: str
    memory_bytes: int
    reserved_bytes: int = 0  # What the guest's kernel holds from boot.
    watermark_min: int | None = None  # Pages; None: as Linux computes it.
    watermark_low: int | None = None
    watermark_high: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: must not be empty; use NORMAL, DMA32 or the like")
        _require_blocks(self.memory_bytes)
        if self.reserved_bytes >= self.memory_bytes or self.reserved_bytes % PAGE_BYTES:
            raise ValueError(
                f"reserved: {write_size(self.reserved_bytes)} must be whole pages of 4KiB and less "
                f"than the zone's {write_size(self.memory_bytes)}"
            )
        marks = [self.watermark_min, self.watermark_low, self.watermark_high]
        given = [mark for mark in marks if mark is not None]
        if given != sorted(given) or any(not 0 <= m <= self.pages for m in given):
            raise ValueError(
                f"watermark_min: min, low and high must ascend from 0 to the zone's "
                f"{self.pages} pages, not {', '.join(map(str, given))}"
            )

    @property
    def pages(self) -> int:
        """Pages of 4 KiB in the zone."""
        return self.memory_bytes // PAGE_BYTES


class GuestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest: its memory, its processors, and how its RAM is made."""

    memory_bytes: int
    vcpus: int
    ram: Literal["memfd", "accounted"] = "memfd"
    pageblock_order: Literal[9, 10] = 9
    thp: bool = True
    zones: tuple[ZoneConfig, ...] = ()  # Empty: see `all_zones`.

    def __post_init__(self) -> None:
        _require_blocks(self.memory_bytes)
        if not 1 <= self.vcpus <= VCPUS_MAX:
            raise ValueError(f"vcpus: {self.vcpus} will not do; use 1 to {VCPUS_MAX}")
        names = [zone.name for zone in self.zones]
        if len(set(names)) != len(names):
            raise ValueError(f"zones: names must differ: {', '.join(names)}")
        total = sum(zone.memory_bytes for zone in self.all_zones)
        if total != self.memory_bytes:
            raise ValueError(
                f"zones: they hold {write_size(total)} in sum, and guest.memory is "
                f"{write_size(self.memory_bytes)}; make the two equal"
            )

    @property
    def all_zones(self) -> tuple[ZoneConfig, ...]:
        """The zones; without any given, one of all memory that is named NORMAL."""
        return self.zones or (ZoneConfig(name="NORMAL", memory_bytes=self.memory_bytes),)

    @property
    def pages(self) -> int:
        """Pages of 4 KiB in the guest."""
        return self.memory_bytes // PAGE_BYTES


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host, where it is modelled and not measured: in virtual time.

    `discard`: how fast it gives memory back; 7.8 GiB/s is what punching 2 MiB holes into a memfd
    of small pages reaches on the reference machine.
    `huge_pages`: the host backs accounted RAM by pages of 2 MiB where nothing is behind any of
    their 512 pages; a discard of a part splits one.
    `memory`: what balloon managers take the host to have for its guests, under either launcher.
    Nothing is enforced: what guests have resident beyond it is shown as it is, and not swapped.
    """

    discard_bytes_per_s: float = 7.8 * (1 << 30)
    huge_pages: bool = False
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.discard_bytes_per_s <= 0:
            raise ValueError("discard: must be above 0")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise ValueError("memory: must be above 0; leave the key out where it is not limited")


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
    expect: tuple[Expectation, ...] = ()
    published: tuple[Published, ...] = ()
    name: str = "scenario"
    source: str = "scenario"  # The file, as messages name it.

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
    cache = rest.pop("page_cache", None)
    if guest is None:
        raise ConfigError("guest: missing; the table must be given with memory and vcpus")
    for key in rest:
        allowed = set(Scenario.__struct_fields__) - {"source"}
        raise ConfigError(f"{key}: unknown key{suggest(key, allowed)}")
    scenario = Scenario(
        question=question,
        guest=decode_parameters(GuestConfig, _with_watermarks(guest), where="guest"),
        mechanism=MechanismConfig(name=mechanism_name, parameters=mechanism),
        workload=WorkloadConfig(kind=workload_kind, parameters=workload),
        host=decode_parameters(HostConfig, host, where="host"),
        guests=decode_parameters(GuestsConfig, guests, where="guests"),
        balloon=None if balloon is None else decode_balloon(balloon),
        page_cache=None if cache is None else decode_page_cache(cache),
        run=decode_parameters(RunConfig, run, where="run"),
        cost=None if cost is None else decode_parameters(CostConfig, cost, where="cost"),
        compare=decode_parameters(CompareConfig, compare, where="compare"),
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


def _require_blocks(memory_bytes: int) -> None:
    block = LARGEST_BLOCK_BYTES
    if memory_bytes == 0 or memory_bytes % block:
        nearest = max(block, (memory_bytes + block // 2) // block * block)
        raise ValueError(
            f"memory: {write_size(memory_bytes)} is not a multiple of {write_size(block)} above 0 "
            f"(the largest block); use {write_size(nearest)}"
        )


def _with_watermarks(guest: Any) -> Any:
    """A watermark is a number of pages, or a size; make it pages."""
    if not isinstance(guest, dict) or not isinstance(guest.get("zones"), list):
        return guest
    zones = []
    for index, zone in enumerate(guest["zones"]):
        converted = dict(zone) if isinstance(zone, dict) else zone
        for key in ("watermark_min", "watermark_low", "watermark_high"):
            if isinstance(converted, dict) and isinstance(converted.get(key), str):
                try:
                    converted[key] = size_bytes(converted[key]) // PAGE_BYTES
                except ValueError as error:
                    raise ConfigError(f"guest.zones.{index}.{key}: {error}") from None
        zones.append(converted)
    return {**guest, "zones": zones}


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
