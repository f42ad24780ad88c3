"""A guest's balloon and its manager: `[balloon]` and `[balloon.manager]` of a scenario."""

from typing import Any, Final

import msgspec

from emulator.config.parameters import decode_parameters, encode_parameters, named_table
from emulator.errors import ConfigError

_EVERY_S_MIN: Final = 0.001


class ManagerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A balloon manager by its registered name."""

    name: str = "band"
    parameters: dict[str, Any] = {}


class BalloonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest's balloon, and how the host manages it.

    `statistics`, `every`: how often the guest is asked for its figures, and the manager decides.
    """

    deflate_on_oom: bool = True
    statistics_s: float = 1.0
    every_s: float = 1.0
    manager: ManagerConfig = ManagerConfig()

    def __post_init__(self) -> None:
        if self.statistics_s < _EVERY_S_MIN or self.every_s < _EVERY_S_MIN:
            raise ValueError("every: must be 1ms or more, and so must statistics")


def decode_balloon(table: Any) -> BalloonConfig:
    """A `[balloon]` table.  Raises `ConfigError` naming the key."""
    if not isinstance(table, dict):
        raise ConfigError("balloon: must be a table, with a table balloon.manager in it")
    rest = dict(table)
    manager, parameters = named_table(
        rest.pop("manager", {"name": "band"}), "balloon.manager", "name"
    )
    config = decode_parameters(BalloonConfig, rest, where="balloon")
    made = ManagerConfig(name=manager, parameters=parameters)
    return msgspec.structs.replace(config, manager=made)


def encode_balloon(balloon: BalloonConfig) -> dict[str, Any]:
    """The table that `decode_balloon` turns into an equal one."""
    own = {"name": balloon.manager.name, **balloon.manager.parameters}
    return {**encode_parameters(balloon), "manager": own}
