"""`[page_cache]` of a scenario: how the guest reads, writes back and reclaims pages of files."""

from typing import Any, Final

import msgspec

from emulator.config.parameters import decode_parameters
from emulator.config.units import PAGE_BYTES, write_size

_TIME_S_MIN: Final = 0.001


class PageCacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page cache of a guest whose workload has files; Linux's defaults unless said otherwise.

    read_ahead              VM_READAHEAD_PAGES
    dirty_background, dirty_ratio, dirty_writeback, dirty_expire    as the sysctls vm.dirty_*
    zone_reclaim, min_unmapped_ratio    as the sysctls vm.zone_reclaim_mode (1) and so on
    write_back              how fast dirty pages are written, under either launcher
    host_read, disk_read    what a reader pays in virtual time for a page from the host's cache,
                            and what more where the host has to read it from its disk; chosen, not
                            measured: a virtual disk of 2 GiB/s on a solid-state disk of 500 MiB/s.
                            In real time no host is read, and nothing is paid.
    """

    read_ahead_bytes: int = 128 << 10
    dirty_background: float = 0.10
    dirty_ratio: float = 0.20
    dirty_writeback_s: float = 5.0
    dirty_expire_s: float = 30.0
    zone_reclaim: bool = False
    min_unmapped_ratio: float = 0.01
    write_back_bytes_per_s: float = 100 << 20
    host_read_bytes_per_s: float = 2 << 30
    disk_read_bytes_per_s: float = 500 << 20

    def __post_init__(self) -> None:
        if not PAGE_BYTES <= self.read_ahead_bytes <= 4 << 20 or self.read_ahead_bytes % PAGE_BYTES:
            raise ValueError(
                f"read_ahead: {write_size(self.read_ahead_bytes)} is not whole pages of 4KiB, one "
                "at least and 4MiB at most"
            )
        if not 0 < self.dirty_background < self.dirty_ratio <= 1:
            raise ValueError(
                f"dirty_background: {self.dirty_background} is not above 0 and below dirty_ratio "
                f"{self.dirty_ratio}, which is at most 1"
            )
        if not 0 <= self.min_unmapped_ratio <= 1:
            raise ValueError(f"min_unmapped_ratio: {self.min_unmapped_ratio} is not from 0 to 1")
        if self.dirty_writeback_s < _TIME_S_MIN or self.dirty_expire_s < 0:
            raise ValueError("dirty_writeback: must be 1ms or more, and dirty_expire not below 0")
        for key in ("write_back", "host_read", "disk_read"):
            if getattr(self, f"{key}_bytes_per_s") < PAGE_BYTES:
                raise ValueError(f"{key}: must be at least 4KiB/s")


def decode_page_cache(table: Any) -> PageCacheConfig:
    """From the table that tomllib read.  Raises `ConfigError` naming the key."""
    return decode_parameters(PageCacheConfig, table, where="page_cache")
