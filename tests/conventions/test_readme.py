"""What the README says of keys, functions and scenarios is so."""

import re
import subprocess
from functools import cache

import msgspec
import pytest

from emulator.config.balloon import BalloonConfig
from emulator.config.capacity import CapacityConfig
from emulator.config.cost import CostConfig
from emulator.config.expectations import Expectation
from emulator.config.guest import GuestConfig, ZoneConfig
from emulator.config.guests import GuestsConfig
from emulator.config.host import HostConfig
from emulator.config.page_cache import PageCacheConfig
from emulator.config.scenario import ROOT, CompareConfig, RunConfig, scenario_names
from emulator.config.units import unit_of

README = (ROOT / "README.md").read_text()
TABLES: dict[
    str, tuple[type[msgspec.Struct], set[str]]
] = {  # Those with a table or a table of tables of their own are left out of the others.
    "[guest]": (GuestConfig, {"zones"}),
    "[[guest.zones]]": (ZoneConfig, set()),
    "[guests]": (GuestsConfig, set()),
    "[host]": (HostConfig, set()),
    "[balloon]": (BalloonConfig, {"manager"}),
    "[page_cache]": (PageCacheConfig, set()),
    "[run]": (RunConfig, set()),
    "[compare]": (CompareConfig, set()),
    "[capacity]": (CapacityConfig, set()),
    "[[expect]]": (Expectation, set()),
}


def keys_of(table: type[msgspec.Struct]) -> list[str]:
    return [unit_of(name)[0] for name in table.__struct_fields__]


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| \n").split(" | ")]


def rows_under(head: str) -> list[list[str]]:
    """The cells of a table's rows, by the line that heads it; of all tables that it heads."""
    found = re.findall(rf"^{re.escape(head)}\n\|[- |]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found, f"{head}: no such table"
    return [cells_of(row) for table in found for row in table.splitlines()]


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@cache
def source_lines() -> str:
    found = subprocess.run(
        ["git", "grep", "-hE", r"^\s*(async def|def|class) ", "--", "devices", "emulator"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout


@pytest.mark.parametrize("name", TABLES)
def test_all_keys_of_a_table_are_named(name: str) -> None:
    table, elsewhere = TABLES[name]
    shown = dict(rows_under("| table | keys |"))[f"`{name}`"]
    assert sorted(re.findall(r"`(\w+)`", shown)) == sorted(set(keys_of(table)) - elsewhere)


def test_every_price_is_in_the_table_of_prices() -> None:
    head = "| key | default | who pays it, and for what | measured as |"
    prices = {key.strip("`"): default for key, default, *_ in rows_under(head)}
    assert sorted(prices) == sorted(keys_of(CostConfig))
    units = {"ns": 1e-9, "us": 1e-6}
    for field, value in msgspec.structs.asdict(CostConfig()).items():
        number, _, unit = prices[unit_of(field)[0]].partition(" ")
        assert float(number) * units.get(unit, 1) == pytest.approx(value), field


def test_a_pages_way_leads_along_functions_that_exist() -> None:
    rows = rows_under("| where | what happens | function |")
    names = [name for _, _, last in rows for name in re.findall(r"`([\w.]+)`", last)]
    assert len(names) > 20
    for name in names:
        for part in name.split("."):
            assert re.search(rf"(def|class) {part}\b", source_lines()), name
    for place in (place for row in rows for place in re.findall(r"`([\w/.]+/[\w.]*)`", row[0])):
        assert (ROOT / place).exists(), place


def test_its_scenarios_exist_and_none_is_left_out() -> None:
    run = re.findall(r"emulator (?:scenario|compare|scale) ([a-z]\w*)", README)
    assert set(run) <= set(scenario_names())
    assert [name for name in scenario_names() if not re.search(rf"\b{name}\b", README)] == []


def test_its_links_lead_to_its_headings() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", README))
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    assert links and links <= {anchor_of(heading) for heading in headings}
