"""`[guest]` and `[[guest.zones]]`: the guest's memory, its zones and its processors."""

from typing import Any, Final, Literal

import msgspec

from emulator.config.parameters import decode_parameters
from emulator.config.units import PAGE_BYTES, size_bytes, write_size
from emulator.errors import ConfigError

LARGEST_BLOCK_BYTES: Final = PAGE_BYTES << 10  # Order 10, the largest of the buddy allocator.
VCPUS_MAX: Final = 64


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


def decode_guest(table: Any) -> GuestConfig:
    """A `[guest]` table.  Raises `ConfigError` naming the key."""
    return decode_parameters(GuestConfig, _with_watermarks(table), where="guest")


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
