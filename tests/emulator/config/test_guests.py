"""`[guests]`, and what it asks of the machine and of the launcher."""

import pytest

from emulator.config.guests import GuestsConfig
from emulator.config.requirements import require_guests, require_memory
from emulator.config.scenario import decode_scenario, load_scenario, to_toml
from emulator.errors import ConfigError

MIB = 1 << 20
SEVERAL = "guests={count=3,apart='20s'}"


def test_each_workload_begins_later_than_the_one_before() -> None:
    guests = load_scenario("memhog", [SEVERAL]).guests
    assert [guests.start_s(index) for index in range(3)] == [0, 20, 40]
    assert load_scenario("memhog").guests == GuestsConfig(count=1, apart_s=0)


def test_it_is_written_only_where_it_says_something() -> None:
    import tomllib

    one, several = load_scenario("memhog"), load_scenario("memhog", [SEVERAL])
    assert "guests" not in to_toml(one)
    again = decode_scenario(tomllib.loads(to_toml(several)), name="again", source="again")
    assert again.guests == several.guests


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("guests.count=0", "count: 0 will not do; use 1 to 64"),
        ("guests.count=65", "count: 65 will not do; use 1 to 64"),
        ("guests.apart='-1s'", "apart"),
        ("guests.number=3", "unknown key"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenario("memhog", [setting])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run.launcher='uml'"], "3 guests are for run.launcher processes or virtual"),
        (["run.transport='vhost-user'"], 'are for run.transport = "shared"'),
    ],
)
def test_what_serves_one_guest_only_says_so(settings: list[str], message: str) -> None:
    require_guests(load_scenario("memhog", settings))
    with pytest.raises(ConfigError, match=message):
        require_guests(load_scenario("memhog", [SEVERAL, *settings]))


def test_the_pages_of_all_guests_must_fit() -> None:
    settings = [SEVERAL, "guest.memory='64MiB'", "guest.ram='memfd'"]
    scenario = load_scenario("memhog", settings)
    require_memory(scenario, available_bytes=3 * 64 * MIB)
    with pytest.raises(ConfigError, match=r"192MiB of real pages for 3 guests do not fit, 191MiB"):
        require_memory(scenario, available_bytes=3 * 64 * MIB - 1)
