"""ageing: who is born lives as long as drawn, and the orders of what is free are counted."""

import msgspec
import numpy as np
import pytest

from emulator.guest.mm.layout import NR_ORDERS
from emulator.report.answer import answer
from emulator.report.free_orders import free_orders
from emulator.workloads.ageing import Ageing
from tests.support.runs import Simulated, simulate, small
from tests.support.sample_run import sample_summary

MIB = 1 << 20


def ageing(*settings: str) -> Simulated:
    return simulate(small("ageing", 'mechanism={name="off"}', *settings))


def test_births_are_even_and_all_die() -> None:
    """Of 1280 a second 64 on each of 2 vCPUs' ticks, in the quiet half a quarter: 16."""
    run = ageing()
    busy_1, quiet_1, busy_2, quiet_2, free, _ = run.summary.phases
    assert [phase.name for phase in run.summary.phases][:3] == ["busy 1", "quiet 1", "busy 2"]
    births = 2 * 20 * (64 + 16) * 2
    deaths = sum(phase.operations or 0 for phase in run.summary.phases) - births
    assert births == deaths
    assert (free.operations or 0) > 0
    assert run.summary.vcpus.failed_allocations == 0
    assert run.summary.oracle.violations == 0
    for one in (busy_1, quiet_1, busy_2, quiet_2):
        assert one.end_s - one.start_s == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    ("shares", "mean_s"), [((0.0, 0.0), 1.0), ((1.0, 0.0), 2.0), ((0.0, 1.0), 4.0)]
)
def test_lifetimes_have_the_means_asked_for(shares: tuple[float, float], mean_s: float) -> None:
    """By Little's law: of 1280 born a second that live for 2 s, 2560 are alive at a time."""
    medium, long = shares
    run = ageing(
        'workload.duration="20s"',
        'workload.period="100s"',
        f"workload.medium_share={medium}",
        f"workload.long_share={long}",
        "workload.order_max=0",
    )
    alive = next(phase.operations for phase in run.summary.phases if phase.name == "free")
    # A lifetime is 1 to twice the mean in ticks of 100 ms, evenly: half a tick more on average.
    assert alive == pytest.approx(1280 * (mean_s + 0.05), rel=0.05)


def test_free_blocks_are_counted_from_the_start_to_the_end() -> None:
    run = ageing()
    figures = run.summary.workload
    counted = figures["free_blocks"]
    times = counted["time_s"]
    assert times == sorted(times)
    assert times[0] == 0 and times[-1] == pytest.approx(8, abs=0.01) == figures["aged_s"]
    by_order = np.array([counted[f"order_{order}"] for order in range(NR_ORDERS)])
    assert by_order[:, 0].tolist() == [0] * 10 + [16]  # All of 64 MiB.
    last = [figures[f"free_blocks_of_order_{order}"] for order in range(NR_ORDERS)]
    assert by_order[:, -1].tolist() == last
    assert figures["free_bytes"] == sum(n << order for order, n in enumerate(last)) * 4096
    assert figures["free_from_order_9_bytes"] == (last[9] + 2 * last[10]) * 2 * MIB


def test_the_answer_says_which_orders_survive() -> None:
    blocks = {f"order_{order}": [0, 0] for order in range(NR_ORDERS)}
    blocks |= {"order_10": [16, 8], "order_9": [0, 4], "order_0": [0, 2048]}
    figures = {"free_blocks": {"time_s": [0.0, 60.0], **blocks}}
    summary = msgspec.structs.replace(sample_summary(), workload=figures)
    assert (
        "After 60 s, 48 MiB were free, 67 % of it in blocks of order 10, 17 % of order 9 and 17 % "
        "in smaller ones; blocks of order 10 held 64 MiB at the start and 32 MiB at the least."
    ) in answer(summary)
    orders = free_orders(summary)
    assert orders is not None
    assert orders.groups()[0] == ("order 10", [64 * MIB, 32 * MIB])
    assert orders.groups()[-1] == ("orders 0 to 2", [0, 8 * MIB])


@pytest.mark.parametrize(
    "damaged",
    [{}, {"time_s": []}, {"time_s": [1], "order_0": [2]}, [1], {"time_s": "x"}],
)
def test_damaged_counts_are_no_counts(damaged: object) -> None:
    summary = msgspec.structs.replace(sample_summary(), workload={"free_blocks": damaged})
    assert free_orders(summary) is None
    assert "were free" not in answer(summary)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"order_max": 11}, "order_max: 11 is not one of 0 to 10"),
        ({"quiet": 1.5}, "quiet: 1.5 is not one of 0 to 1"),
        ({"long_share": 1.0}, "medium_share: with long_share"),
        ({"short_s": 0.01}, "short: must be a tenth of a second or more"),
        ({"long_s": 1e9}, "long: a mean lifetime, as short and medium, must be 7 days or less"),
        ({"rate_blocks_per_s": 0.0}, "rate: must be above 0"),
        ({"idle_s": -1.0}, "idle: a time cannot be below 0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ageing(**parameters)  # type: ignore[arg-type]
