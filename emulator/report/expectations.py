"""An expectation in words: the figure as people read it, beside its bounds."""

from emulator.report.wording import exact_text, keyed_text, unit_key
from emulator.summary import ExpectationResult


def expectation_words(result: ExpectationResult) -> str:
    """What the figure is and what was expected: `is 132 MiB, expected at most 200 MiB`.

    When rounding would hide why an expectation failed, both are given exactly.
    """
    bounds = [
        (words, bound)
        for words, bound in (
            ("at least", result.at_least),
            ("at most", result.at_most),
            ("", result.equals),
        )
        if bound is not None
    ]
    key = unit_key(result.metric)
    value = keyed_text(key, result.value)[0]
    readings = [keyed_text(key, bound)[0] for _, bound in bounds]
    if not result.passed and value in readings and isinstance(result.value, int | float):
        unit = "bytes" if "_bytes" in key else ""
        value = exact_text(result.value, unit)
        readings = [
            exact_text(bound, unit) if isinstance(bound, int | float) else bound
            for _, bound in bounds
        ]
    expected = " and ".join(
        f"{words} {reading}".strip() for (words, _), reading in zip(bounds, readings, strict=True)
    )
    return f"is {value}, expected {expected}"
