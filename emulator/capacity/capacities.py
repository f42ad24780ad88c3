"""What fits of the guests under each mechanism, as one document: `capacity.json`."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from emulator.capacity.figures import CapacityFigures, FitFigures
from emulator.capacity.footprints import lay_footprints
from emulator.capacity.resample import Capacity, find_capacity
from emulator.config.capacity import CapacityConfig
from emulator.errors import ConfigError
from emulator.summary import decode_document

SCHEMA: Final = 1

Recording = tuple[list[float], list[float]]  # Seconds, bytes.
Run = list[Recording]  # Of each guest.


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
    recorded: Mapping[str, Sequence[Run]], config: CapacityConfig, *, seed: int
) -> list[CapacityOf]:
    """What fits under each mechanism; for one that cannot be answered, why."""
    found = []
    for label, runs in recorded.items():
        recordings = [recording for run in runs for recording in run]
        of = [number for number, run in enumerate(runs) for _ in run]
        try:
            footprints = lay_footprints(recordings, after_s=config.after_s, runs=of)
            capacity = find_capacity(footprints, config, seed=seed)
        except ConfigError as error:
            found.append(CapacityOf(label=label, why=str(error)))
        else:
            found.append(CapacityOf(label=label, found=capacity))
    return found


def figures_of(capacities: Sequence[CapacityOf]) -> CapacityFigures:
    """What stands in the summary of a run: of its mechanism, and nothing where it was not asked or
    not answered."""
    if not capacities or capacities[0].found is None:
        return CapacityFigures()
    found = capacities[0].found
    return CapacityFigures(
        host_bytes=found.host_bytes,
        recordings=found.recordings,
        guest_mean_bytes=round(found.guest_mean_bytes),
        guest_peak_bytes=round(found.guest_peak_bytes),
        guests_by_mean=found.guests_by_mean,
        guests_by_peak=found.guests_by_peak,
        fits=[
            FitFigures(
                probability=fit.probability,
                guests=fit.fits.guests,
                guests_low=fit.fits.low,
                guests_high=fit.fits.high,
                guests_whole_periods=fit.fits_whole_periods.guests,
                exceeding=fit.exceeding,
            )
            for fit in found.fits
        ],
    )


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
