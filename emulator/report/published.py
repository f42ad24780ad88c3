"""A published figure in words, beside what was measured."""

from emulator.config.published import Published
from emulator.published import Beside
from emulator.report.wording import keyed_text, unit_key


def beside_words(beside: Beside) -> str:
    """The figure of a source beside that of a run: `measured 40 MiB, published 38 MiB (who)`."""
    if beside.why:
        return missing_words(beside.published, beside.why)
    key = unit_key(beside.published.metric or "")
    return measured_words(keyed_text(key, beside.measured)[0], beside.published)


def measured_words(measured: str, published: Published) -> str:
    """What was measured, in words, beside what was published."""
    return f"measured {measured}, published {figure_text(published)} ({published.source})"


def missing_words(published: Published, why: str) -> str:
    """What was published, and why nothing measured stands beside it."""
    return f"published {figure_text(published)} ({published.source}); not measured here: {why}"


def figure_text(published: Published) -> str:
    """The figure: a number as figures of its metric read, or the source's own words."""
    if isinstance(published.figure, str):
        return published.figure
    return keyed_text(unit_key(published.metric or ""), published.figure)[0]
