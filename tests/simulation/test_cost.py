"""Virtual time with prices: what runs pay, by hand where they are small, and in which order.

The order and the signs of `order_delay` are those of a study on hardware (HyperAlloc's compile
benchmark): reporting single pages costs a build time, and more if they are reported sooner;
reporting blocks of 2 MiB costs nothing that can be measured.
"""

from functools import cache

import pytest

from emulator.config.cost import CostConfig
from emulator.config.scenario import Scenario, load_scenario
from emulator.summary import Summary
from tests.support.runs import simulate, small

PRICES = CostConfig()


def memhog(*settings: str) -> Scenario:
    accounted = ("guest.ram=accounted", "guest.vcpus=1", "mechanism={name='off'}", "cost={}")
    workload = ("workload.rate=64MiB/s", "workload.iterations=2", "workload.fraction=0.9")
    return small("memhog", *accounted, *workload, *settings)


def phases_s(summary: Summary) -> dict[str, float]:
    return {phase.name: phase.end_s - phase.start_s for phase in summary.phases}


def filled_pages(summary: Summary) -> int:
    return (summary.vcpus.operations or 0) // 4


def test_a_first_touch_costs_a_fault_a_page_and_a_second_none() -> None:
    summary = simulate(memhog()).summary
    pages, resident = filled_pages(summary), (summary.host.resident_bytes_end or 0) // 4096
    fault_s = PRICES.exit_s + PRICES.host_fault_s
    took = phases_s(summary)
    assert took["fill 1"] == pytest.approx(pages / 16384 + pages * fault_s, rel=1e-4)
    # The second time it got a few pages that it did not have before.
    assert resident < 1.1 * pages
    assert took["fill 2"] == pytest.approx(pages / 16384 + (resident - pages) * fault_s, rel=1e-4)
    assert summary.cost.vcpu_fault_s == pytest.approx(resident * fault_s)
    assert (summary.cost.vcpu_interrupted_s, summary.cost.vcpu_displaced_s) == (0, 0)
    assert summary.cost.zone_lock_wait_s == 0
    assert summary.cost.cpu_s_per_gib_returned is None  # Nothing was returned.


def test_huge_pages_are_faulted_in_at_once() -> None:
    summary = simulate(memhog("host.huge_pages=true")).summary
    touched = (summary.host.resident_bytes_peak or 0) // (2 << 20)
    assert touched * 512 >= filled_pages(summary)
    fault_s = touched * (PRICES.exit_s + PRICES.host_fault_huge_s)
    assert summary.cost.vcpu_fault_s == pytest.approx(fault_s)


def test_what_was_returned_is_faulted_in_again() -> None:
    reporting = "mechanism={name='page_reporting',order=9,delay='100ms',capacity=1}"
    summary = simulate(memhog(reporting)).summary
    returned = (summary.hinting.returned_bytes or 0) // 4096
    again = (summary.hinting.refaulted_bytes or 0) // 4096
    pages, resident = filled_pages(summary), (summary.host.resident_bytes_end or 0) // 4096
    assert again > 0.8 * pages
    # Every page that is resident, or was until it was returned, was faulted in for that.
    fault_s = PRICES.exit_s + PRICES.host_fault_s
    assert summary.cost.vcpu_fault_s == pytest.approx((returned + resident) * fault_s)
    assert phases_s(summary)["fill 2"] > pages / 16384 + again * fault_s
    per_gib_s = summary.cost.cpu_s_per_gib_returned or 0
    assert per_gib_s > (summary.host.cpu_s or 0) / (returned / 2**18) > 1 / 7.8


def test_without_prices_nothing_costs_and_nothing_is_shown() -> None:
    summary = simulate(small("memhog", "guest.ram=accounted", "workload.rate=64MiB/s")).summary
    cost = summary.cost
    assert cost.cpu_s_per_gib_returned is cost.zone_lock_wait_s is cost.vcpu_fault_s is None
    took = phases_s(summary)
    assert took["fill 1"] == pytest.approx(took["fill 2"], abs=0.004)  # A barrier is polled.


def test_vcpus_wait_while_the_hinting_task_holds_the_lock() -> None:
    settings = ("cost={}", "mechanism={name='page_reporting',order=0,delay='20ms'}")
    cheap = simulate(small("build", *settings)).summary
    dear = simulate(small("build", *settings, "cost.list_step=100us")).summary
    assert (dear.cost.zone_lock_wait_s or 0) > 10 * (cheap.cost.zone_lock_wait_s or 0)
    assert dear.workload["build_s"] > cheap.workload["build_s"]
    assert dear.cost.zone_lock_hold_us is not None and cheap.cost.zone_lock_hold_us is not None
    assert (dear.cost.zone_lock_hold_us.max or 0) > (cheap.cost.zone_lock_hold_us.max or 0)


def test_a_replayed_trace_ends_later_by_what_it_pays() -> None:
    free = simulate(small("replay", "mechanism={name='off'}")).summary
    paid = simulate(small("replay", "mechanism={name='off'}", "cost={}")).summary
    late_s = begin_of_idle_s(paid) - begin_of_idle_s(free)
    # Its vCPUs' faults, half of them on each of the two.
    assert late_s == pytest.approx((paid.cost.vcpu_fault_s or 0) / 2, abs=1e-6)


def begin_of_idle_s(summary: Summary) -> float:
    return next(phase.start_s for phase in summary.phases if phase.name == "idle")


@cache
def built(order: int, delay: str) -> Summary:
    """`order_delay`, small: a build of a few seconds in 512 MiB; order -1: nothing reported."""
    mechanism = "mechanism={name='off'}"
    if order >= 0:
        mechanism = f"mechanism={{name='page_reporting',order={order},delay='{delay}'}}"
    scenario = load_scenario(
        "order_delay",
        [
            *(
                "guest.memory=512MiB",
                "guest.vcpus=3",
                "workload.jobs=24",
                "workload.compiler=60MiB",
            ),
            *("workload.assembler=16MiB", "workload.assembly=2MiB", "workload.object=1MiB"),
            *("expect=[]", "published=[]", mechanism),
        ],
    )
    return simulate(scenario).summary


def slower(order: int, delay: str) -> float:
    """By what fraction the build takes longer than without reporting."""
    return float(built(order, delay).workload["build_s"] / built(-1, "").workload["build_s"]) - 1


def test_reporting_large_blocks_costs_a_build_nothing_that_can_be_measured() -> None:
    assert abs(slower(9, "2s")) < 0.005
    assert abs(slower(9, "100ms")) < 0.005


def test_reporting_single_pages_costs_a_build_time_and_more_if_it_is_done_sooner() -> None:
    assert slower(0, "2s") > max(slower(9, "2s"), slower(9, "100ms"), 0.005)
    assert slower(0, "100ms") > 2 * slower(0, "2s")


def test_reporting_single_pages_after_a_while_leaves_less_than_reporting_large_blocks() -> None:
    footprints = [built(9, "2s"), built(0, "2s")]
    large, single = (summary.host.footprint_gib_min or 0 for summary in footprints)
    # When the build is seen to be over hangs on how its vCPUs look at their barrier.
    assert single < large <= 1.001 * (built(-1, "").host.footprint_gib_min or 0)


def test_most_of_what_is_reported_as_single_pages_soon_is_wanted_back() -> None:
    assert (built(0, "100ms").hinting.regret or 0) > 0.7
