"""Managers that go by the host's memory, against their rules' arithmetic done by hand."""

from pathlib import Path
from typing import Any

import pytest

from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError
from emulator.host.managers.manager import HostSight, Sight
from emulator.host.managers.mom import Mom
from emulator.host.managers.registry import load_manager
from emulator.host.managers.share import Share
from emulator.machine_parts import load_parts

MIB = 1 << 20


def sight(kept_mib: int, unused_mib: int | None, host_free: float, **host: int) -> Sight:
    """A guest of 1000 MiB on a host of 2000."""
    free_bytes = round(host_free * 2000 * MIB)
    return Sight(
        now_s=0,
        memory_bytes=1000 * MIB,
        balloon_bytes=(1000 - kept_mib) * MIB,
        guest={} if unused_mib is None else {"free_bytes": unused_mib * MIB},
        host=HostSight(memory_bytes=2000 * MIB, free_bytes=free_bytes, **host),
    )


@pytest.mark.parametrize(
    ("kept_mib", "unused_mib", "host_free", "wanted_mib"),
    [
        (1000, 500, 0.10, 950),  # It uses 500 and a tenth more; but 5 % at most at once.
        (600, 55, 0.10, None),  # Uses 545 and needs 60: more than it has.
        (600, 61, 0.10, None),  # 599: a change of less than a quarter of a per cent.
        (600, 10, 0.03, 578),  # Critical: 590 less 2 % of 600.
        (600, 10, 0.05, 590),  # At the edge of critical: what it uses.
        (600, 100, 0.50, 700),  # Grown: uses 500, and a fifth of its whole memory.
        (600, 400, 0.50, 630),  # 5 % more is enough.
        (990, 400, 0.50, 1000),
        (900, 50, 0.50, 1050),  # The order of the clamps: beyond what it can have.
        (1000, 0, 0.50, None),
        (600, 100, 0.20, 700),  # At the mark there is no pressure.
        (600, None, 0.50, None),
    ],
)
def test_the_plain_rules_of_mom(
    kept_mib: int, unused_mib: int | None, host_free: float, wanted_mib: int | None
) -> None:
    wanted = Mom().decide(sight(kept_mib, unused_mib, host_free))
    assert wanted == (None if wanted_mib is None else wanted_mib * MIB)


@pytest.mark.parametrize(
    ("kept_mib", "unused_mib", "host_free", "least_mib", "wanted_mib"),
    [
        (600, 100, 0.50, 0, 630),  # Uses 500, and a fifth of 600: 620 is less than 5 % more.
        (600, 10, 0.50, 0, 710),
        (900, 50, 0.50, 0, 1000),  # 1030, but no more than there is.
        (200, 50, 0.50, 400, 400),
        (600, 500, 0.10, 580, 580),
        (600, 500, 0.10, 0, 570),
    ],
)
def test_the_ovirt_variant_of_mom(
    kept_mib: int, unused_mib: int, host_free: float, least_mib: int, wanted_mib: int
) -> None:
    mom = Mom(variant="ovirt", least_bytes=least_mib * MIB)
    assert mom.decide(sight(kept_mib, unused_mib, host_free)) == wanted_mib * MIB


@pytest.mark.parametrize(
    ("weights", "index", "host_free", "wanted_mib"),
    [
        ((), 0, 0.05, 450),  # 90 % of 2000, by four.
        ((3.0,), 0, 0.05, 900),  # Three of six parts.
        ((3.0,), 3, 0.05, 300),
        ((100.0,), 1, 0.05, 100),  # 17 by weight, but a tenth of its memory.
        ((100.0,), 0, 0.05, 1000),  # No more than it has.
        ((), 0, 0.10, None),
        ((), 0, 0.40, None),
        ((), 0, 0.45, 1000),
    ],
)
def test_shares_go_by_weight(
    weights: tuple[float, ...], index: int, host_free: float, wanted_mib: int | None
) -> None:
    seen = sight(1000, None, host_free, guests=4, index=index)
    wanted = Share(weights=weights).decide(seen)
    assert wanted == (None if wanted_mib is None else wanted_mib * MIB)


@pytest.mark.parametrize(
    ("cls", "parameters", "message"),
    [
        (Mom, {"pressure": 1.5}, "pressure: 1.5 is not from 0 to 1"),
        (Mom, {"critical": 0.3}, "critical: 0.3 must be below pressure"),
        (Mom, {"least_bytes": -1}, "least: must not be below 0"),
        (Share, {"below": 0.95}, "must ascend"),
        (Share, {"weights": (1.0, 0.0)}, "weights: must all be above 0"),
        (Share, {"least": 2.0}, "least: 2.0 is not from 0 to 1"),
    ],
)
def test_impossible_parameters_are_rejected(
    cls: type, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**parameters)


@pytest.mark.parametrize("name", ["mom", "share"])
def test_the_hosts_memory_must_be_said(name: str) -> None:
    settings = [f'balloon.manager={{name="{name}"}}']
    load_parts(load_scenario("memhog", [*settings, "host.memory='8GiB'"]))
    with pytest.raises(ConfigError, match=f"name: {name} needs host.memory, such as 8GiB"):
        load_parts(load_scenario("memhog", settings))


MINE = """
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class Mine:
    name = "mine"
    half_bytes: int = 0

    def decide(self, seen):
        return seen.memory_bytes - self.half_bytes

class Plain:
    name = "plain"

    def decide(self, seen):
        return None

@dataclass
class Nameless:
    def decide(self, seen):
        return None
"""


def test_a_managers_own_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    manager = load_manager(f"{tmp_path}/mine.py:Mine", {"half": "500MiB"}, where="x")
    assert manager.decide(sight(1000, None, 0.5)) == 500 * MIB
    text = 'question = "q?"\n[guest]\nmemory="64MiB"\nvcpus=1\n[mechanism]\nname="off"\n'
    text += '[workload]\nkind="memhog"\n[balloon.manager]\nname="./mine.py:Mine"\n'
    (tmp_path / "s.toml").write_text(text)
    scenario = load_scenario(tmp_path / "s.toml")
    assert scenario.balloon is not None
    assert scenario.balloon.manager.name == f"{tmp_path}/mine.py:Mine"


@pytest.mark.parametrize(
    ("text", "cls", "message"),
    [
        (MINE, "Other", "has no class 'Other' with decide"),
        (MINE, "Plain", "must be a dataclass"),
        (MINE, "Nameless", 'lacks name = "..."'),
        ("import nothing_like_it", "Mine", "cannot be imported: ModuleNotFoundError"),
        (None, "Mine", "is not a file; a manager is given as FILE:CLASS"),
    ],
)
def test_a_bad_own_file_is_named(text: str | None, cls: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_manager(f"{path}:{cls}", {}, where="x")
    assert "\n" not in str(error.value)
