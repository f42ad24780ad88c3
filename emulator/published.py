"""The figures that sources published, each beside what a run measured, or why it did not."""

from dataclasses import dataclass
from typing import Any

from emulator.config.published import Published
from emulator.config.scenario import MechanismConfig, Scenario
from emulator.config.toml import dumps
from emulator.errors import ConfigError
from emulator.report.wording import counted
from emulator.summary import Summary, lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A published figure; `measured` in the metric's unit, or None and why it was not."""

    published: Published
    measured: Any = None
    why: str = ""


def beside_run(scenario: Scenario, summary: Summary) -> list[Beside]:
    """The scenario's published figures beside those of one run, in their order."""
    return [_beside(published, scenario, summary) for published in scenario.published]


def measured_by(summary: Summary, metric: str) -> Any:
    """The figure of a summary; None if it was not measured, or is none of this workload's."""
    try:
        return lookup(summary, metric)
    except ConfigError:
        return None


def why_not(published: Published, vcpus: int) -> str:
    """Why no run with so many vCPUs measures it, under whatever mechanism; empty if one does."""
    if published.metric is None:
        return "the emulator has no such figure"
    if published.vcpus not in (None, vcpus):
        return f"it takes {counted(published.vcpus or 0, 'vCPU')}"
    return ""


def is_under(published: Published, mechanism: MechanismConfig) -> bool:
    """Whether the figure was found under this mechanism, with the parameters that it names."""
    if published.mechanism is None:
        return mechanism.name != published.against
    if published.mechanism != mechanism.name:
        return False
    if not published.parameters:
        return True
    from emulator.guest.hinting.registry import load_mechanism

    own = load_mechanism(mechanism.name, mechanism.parameters, where="mechanism")
    changed = mechanism.parameters | published.parameters
    return load_mechanism(mechanism.name, changed, where="published.parameters") == own


def mechanism_text(published: Published) -> str:
    """The mechanism as `--mechanism` names it: `page_reporting(order=0,delay=2s)`."""
    if not published.parameters:
        return published.mechanism or "any mechanism"
    lines = dumps(published.parameters).splitlines()
    pairs = ",".join(line.replace(" = ", "=", 1).replace('"', "") for line in lines)
    return f"{published.mechanism}({pairs})"


def _beside(published: Published, scenario: Scenario, summary: Summary) -> Beside:
    why = why_not(published, scenario.guest.vcpus)
    if not why and not is_under(published, scenario.mechanism):
        why = f"this is not {mechanism_text(published)}"
    if not why and published.against is not None:
        why = f"a difference to {published.against} takes compare"
    if why or published.metric is None:
        return Beside(published=published, why=why)
    measured = measured_by(summary, published.metric)
    return Beside(
        published=published, measured=measured, why="" if measured is not None else "not measured"
    )
