"""A migration of a few pages, step by step: log, rounds, switch, and what a hint loses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.layout import MIGRATION
from devices.memory.ram import PAGE_SIZE, GuestRam, RamKind
from emulator.host.discard import RAM_REGION
from emulator.host.migration import Migration

PAGES = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    bandwidth_bytes_per_s: float = 1000 * PAGE_SIZE
    downtime_s: float = 0.01
    rounds_max: int = 9


class Source:
    """RAM whose pages a test writes, and its migration."""

    def __init__(self, kind: RamKind) -> None:
        self.ram = GuestRam.create(kind, PAGES * PAGE_SIZE)
        view = self.ram.view()
        self.words, self._shift = view.words, view.shift
        self.record = np.zeros(1, MIGRATION)
        self.migration = Migration(self.ram, self.record, Plan())
        self._generation = 0

    def write(self, *pages: int) -> None:
        for page in pages:
            self._generation += 1
            self.words[page << self._shift] = page << 32 | self._generation

    def read(self, page: int) -> int:
        return int(self.words[page << self._shift])

    def send_all(self) -> int:
        sent = 0
        while (more := self.migration.send(7)) is not None:
            sent += more
        return sent


@pytest.fixture(params=["memfd", "accounted"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    made = Source(request.param)
    yield made
    made.ram.close()


def hint(first: int, pages: int) -> Any:
    ranges = np.zeros(1, DISCARD_RANGE)
    ranges[0] = (RAM_REGION, first * PAGE_SIZE, pages * PAGE_SIZE)
    return ranges


def test_the_first_round_sends_all_and_the_next_what_was_written_since(source: Source) -> None:
    source.write(*range(20))
    assert source.migration.begin_round() == PAGES
    assert source.send_all() == 20
    assert source.record[0]["zero_pages"] == PAGES - 20
    source.write(3, 40)
    assert source.migration.begin_round() == 2
    assert source.send_all() == 2
    assert source.migration.begin_round() == 0
    assert source.record[0]["rounds"] == 3
    assert len(source.migration.switch()) == 0


def test_a_page_written_while_it_waits_is_sent_as_it_is_then(source: Source) -> None:
    source.write(*range(20))
    source.migration.begin_round()
    assert source.migration.send(5) == 5
    source.write(2, 10)  # One is sent already, the other is not.
    assert source.send_all() == 15
    assert source.migration.begin_round() == 1
    source.send_all()
    before = [source.read(page) for page in range(PAGES)]
    source.migration.switch()
    assert [source.read(page) for page in range(PAGES)] == before


def test_hinted_pages_are_not_sent_and_the_destination_does_not_have_them(source: Source) -> None:
    source.write(*range(20))
    source.migration.begin_round()
    source.migration.skip(hint(4, 8))
    assert source.record[0]["skipped_pages"] == 8
    assert source.send_all() == 12
    assert source.migration.switch().tolist() == [(RAM_REGION, 4 * PAGE_SIZE, 8 * PAGE_SIZE)]


def test_a_write_after_the_hint_is_sent_and_one_before_it_is_lost(source: Source) -> None:
    source.write(0, 1)
    source.migration.begin_round()
    source.send_all()
    sent = source.read(0)
    source.write(0)  # Taken back and written before the host handles the hint ...
    source.migration.skip(hint(0, 2))
    source.write(1)  # ... and after it.
    kept = source.read(1)
    assert source.migration.begin_round() == 1
    source.send_all()
    assert len(source.migration.switch()) == 0
    assert source.read(0) == sent
    assert source.read(1) == kept


def test_hints_outside_of_guest_ram_are_not_looked_at(source: Source) -> None:
    ranges = hint(0, 4)
    ranges["region"] = RAM_REGION + 1
    source.migration.skip(ranges)
    assert source.record[0]["skipped_pages"] == 0


def test_what_fits_into_the_downtime(source: Source) -> None:
    assert source.migration.fits_downtime(10)
    assert not source.migration.fits_downtime(11)
