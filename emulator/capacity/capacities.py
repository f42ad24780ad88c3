"""What fits of the guests under each mechanism, as one document: `capacity.json`."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from emulator.capacity.footprints import lay_footprints
from emulator.capacity.resample import Capacity, find_capacity
from emulator.config.capacity import CapacityConfig
from emulator.errors import ConfigError
from emulator.summary import decode_document

SCHEMA: Final = 1

Recording = tuple[list[float], list[float]]  # Seconds, bytes.


class CapacityOf(msgspec.Struct, frozen=True, kw_only=True):
    """What fits of the guests under one mechanism; without it `why` not."""

    label: str
    found: Capacity | None = None
    why: str = ""


class Capacities(msgspec.Struct, frozen=True, kw_only=True):
    """`capacity.json`, schema 1."""

    schema: int = SCHEMA
    capacity: list[CapacityOf]


def capacities_of(
    recorded: Mapping[str, Sequence[Recording]], config: CapacityConfig, *, seed: int
) -> list[CapacityOf]:
    """What fits under each mechanism; for one that cannot be answered, why."""
    found = []
    for label, recordings in recorded.items():
        try:
            footprints = lay_footprints(recordings, after_s=config.after_s)
            capacity = find_capacity(footprints, config, seed=seed)
        except ConfigError as error:
            found.append(CapacityOf(label=label, why=str(error)))
        else:
            found.append(CapacityOf(label=label, found=capacity))
    return found


def require_answer(capacities: Sequence[CapacityOf]) -> None:
    """Raise ConfigError if it was asked for, and nothing could be answered."""
    if capacities and all(one.found is None for one in capacities):
        raise ConfigError(f"{capacities[0].label}: {capacities[0].why}")


def to_json(capacities: Sequence[CapacityOf]) -> str:
    """The text of `capacity.json`, indented."""
    document = Capacities(capacity=list(capacities))
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def from_json(text: str | bytes, *, where: str) -> list[CapacityOf]:
    """From its text.  Raises `ConfigError` that begins with `where`."""
    return decode_document(text, Capacities, SCHEMA, where=where).capacity
