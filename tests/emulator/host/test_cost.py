"""What the host pays in virtual time, held against sums worked out by hand."""

import numpy as np
import pytest

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.ram import HUGE_PAGES, PAGE_SIZE, GuestRam
from emulator.config.cost import CostConfig
from emulator.host.cost import HostCosts
from emulator.host.discard import Discarder
from emulator.host.layout import HOST

PRICES = CostConfig(
    wake_s=1.0,
    report_s=0.1,
    block_s=0.01,
    discard_call_s=1e-3,
    flush_s=2e-3,
    flushes=3,
    discard_huge_s=5e-4,
)
HUGE = HUGE_PAGES * PAGE_SIZE


class Host:
    """Accounted RAM of 8 MiB in huge pages, none of it touched."""

    def __init__(self, *, huge: bool = True, join: bool = True) -> None:
        self.ram = GuestRam.create("accounted", 4 * HUGE, huge=huge)
        self.account = np.zeros(1, HOST)
        self.discarder = Discarder.of_ram(self.ram, self.account, join=join)

    def back(self, first: int, count: int) -> None:
        """As if those pages had been touched."""
        self.ram.view().words[first : first + count] = 1

    def back_huge(self, number: int) -> None:
        self.back(number * HUGE_PAGES, HUGE_PAGES)
        self.ram.view().huge[number] = 1

    def discard(self, *ranges: tuple[int, int]) -> int:
        """Ranges of (first page, pages)."""
        given = np.zeros(len(ranges), DISCARD_RANGE)
        given["offset"] = [first * PAGE_SIZE for first, _ in ranges]
        given["length"] = [count * PAGE_SIZE for _, count in ranges]
        return self.discarder.discard(given)


def test_a_report_costs_its_blocks_its_discards_and_what_they_find() -> None:
    host = Host()
    costs = HostCosts(host.account, PRICES, discard_bytes_per_s=1e6)
    host.back(2, 4)
    host.back_huge(1)
    # Two blocks that touch each other, a huge page, and one with nothing behind it.
    host.discard((2, 2), (4, 2), (HUGE_PAGES, HUGE_PAGES), (100, 1))
    work_s = 0.1 + 4 * 0.01 + 3 * 1e-3 + 2 * 3 * 2e-3 + 5e-4 + 4 * PAGE_SIZE / 1e6
    assert costs.report_s(4) == pytest.approx(work_s + 1.0)
    assert costs.cpu_s == pytest.approx(work_s)  # Sleeping and waking up is no work.
    assert costs.report_s(0) == pytest.approx(0.1 + 1.0)  # What is paid is not paid again.


def test_a_host_that_joins_nothing_pays_for_each_range() -> None:
    host = Host(huge=False, join=False)
    costs = HostCosts(host.account, PRICES, discard_bytes_per_s=1e6)
    host.back(2, 4)
    assert host.discard((4, 2), (2, 2), (100, 1)) == 4 * PAGE_SIZE
    assert (host.account[0]["ranges"], host.account[0]["discards"]) == (3, 2)
    work_s = 0.1 + 3 * 0.01 + 3 * 1e-3 + 2 * 3 * 2e-3 + 4 * PAGE_SIZE / 1e6
    assert costs.report_s(3) == pytest.approx(work_s + 1.0)


def test_without_prices_a_report_takes_what_its_bytes_take() -> None:
    host = Host(huge=False)
    costs = HostCosts(host.account, None, discard_bytes_per_s=4096.0)
    host.back(0, 3)
    host.discard((0, 8))
    assert costs.report_s(1) == 3.0
    assert costs.cpu_s == 0


def test_a_huge_page_is_given_back_whole_or_split() -> None:
    host = Host()
    for number in range(3):
        host.back_huge(number)
    assert host.discard((0, HUGE_PAGES)) == HUGE
    assert host.discard((HUGE_PAGES + 7, 1)) == PAGE_SIZE
    assert host.ram.view().huge.tolist() == [0, 0, 1, 0]
    # What is left of the split one, and the third, in one range that neither begins.
    assert host.discard((HUGE_PAGES // 2, 3 * HUGE_PAGES)) == 2 * HUGE - PAGE_SIZE
    assert host.ram.view().huge.tolist() == [0, 0, 0, 0]
    account = host.account[0]
    assert (int(account["ranges"]), int(account["discards"])) == (3, 3)
    assert account["huge_pages"] == 2
    assert account["returned_bytes"] == 3 * HUGE


def test_a_discard_that_finds_nothing_interrupts_nobody() -> None:
    host = Host()
    assert host.discard((0, 512), (1024, 1)) == 0
    assert (int(host.account[0]["ranges"]), int(host.account[0]["discards"])) == (2, 0)
