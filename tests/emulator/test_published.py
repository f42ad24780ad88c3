"""Published figures beside those of a run: when one is, and why not."""

import msgspec
import pytest

from emulator.config.published import Published
from emulator.config.scenario import MechanismConfig, Scenario
from emulator.published import beside_run, is_under, mechanism_text
from emulator.report.published import beside_words
from tests.support.sample_run import sample_scenario, sample_summary

ORDER_0 = MechanismConfig(name="page_reporting", parameters={"order": 0})


def published(**changes: object) -> Published:
    figures = {"what": "what", "figure": "most", "source": "who", "metric": "hinting.regret"}
    return msgspec.convert(figures | changes, Published)


def with_published(*figures: Published) -> Scenario:
    return msgspec.structs.replace(sample_scenario(), published=figures)


def words_of(figure: Published) -> str:
    (beside,) = beside_run(with_published(figure), sample_summary())
    return beside_words(beside)


def test_a_figure_stands_beside_the_measured_one() -> None:
    assert words_of(published()) == "measured 0.5, published most (who)"
    end = published(metric="host.resident_bytes_end", figure=200 << 20)
    assert words_of(end) == "measured 103 MiB, published 200 MiB (who)"
    soon = published(metric="hinting.reclaim_latency_ms.p50", figure=2000, mechanism=None)
    assert words_of(soon) == "measured 3.31 s, published 2 s (who)"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metric": None}, "the emulator has no such figure"),
        ({"vcpus": 16}, "it takes 16 vCPUs"),
        ({"mechanism": "bitmap"}, "this is not bitmap"),
        (
            {"mechanism": "page_reporting", "parameters": {"order": 0, "delay": "2s"}},
            "this is not page_reporting(order=0,delay=2s)",
        ),
        ({"against": "off"}, "a difference to off takes compare"),
        ({"metric": "stranded.unreported_bytes"}, "not measured"),
        ({"metric": "workload.of_another_workload"}, "not measured"),
    ],
)
def test_without_a_measured_one_it_says_why(changes: dict[str, object], why: str) -> None:
    assert words_of(published(**changes)) == f"published most (who); not measured here: {why}"


@pytest.mark.parametrize(
    ("changes", "mechanism", "expected"),
    [
        ({}, ORDER_0, True),
        ({"against": "off"}, MechanismConfig(name="off"), False),
        ({"against": "off"}, ORDER_0, True),
        ({"mechanism": "page_reporting"}, ORDER_0, True),
        ({"mechanism": "bitmap"}, ORDER_0, False),
        ({"mechanism": "page_reporting", "parameters": {"order": 0}}, ORDER_0, True),
        ({"mechanism": "page_reporting", "parameters": {"order": 9}}, ORDER_0, False),
        # What the run does not name has its default: two seconds, however they are written.
        ({"mechanism": "page_reporting", "parameters": {"delay": "2000ms"}}, ORDER_0, True),
    ],
)
def test_it_is_of_a_mechanism_whose_parameters_it_would_not_change(
    changes: dict[str, object], mechanism: MechanismConfig, expected: bool
) -> None:
    assert is_under(published(**changes), mechanism) is expected


def test_a_mechanism_is_named_as_on_the_command_line() -> None:
    parameters = {"order": 0, "delay": "100ms"}
    one = published(mechanism="page_reporting", parameters=parameters)
    assert mechanism_text(one) == "page_reporting(order=0,delay=100ms)"
