"""What a source found: `[[published]]`, shown beside what a run of the scenario measures.

    [[published]]
    what = "page_fault1 with 16 vCPUs"
    metric = "workload.pages_per_s"       a figure of the summary
    mechanism = "page_hinting"            under which it was found; left out: under any
    against = "off"                       a difference to this mechanism, in per cent
    vcpus = 16                            with so many; left out: with any number
    figure = "up to -2 %"                 a number in the metric's unit, or the source's words
    source = "A. Duyck, [PATCH v2 0/5], 24 Jul 2019"

Nothing is checked against a published figure: other machines, kernels and hosts made it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from emulator.config.parameters import decode_parameters, encode_parameters
from emulator.config.units import Number


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure of a source, and of what it is."""

    what: str  # In words, with the circumstances that the other keys do not name.
    figure: Number | str  # In the metric's unit, or in words.
    source: str  # Who, in what, when.
    metric: str | None = None  # A dotted path into the summary; None: nothing here measures it.
    mechanism: str | None = None
    parameters: dict[str, Any] = {}  # Of the mechanism; those not named may be anything.
    against: str | None = None
    vcpus: int | None = None

    def __post_init__(self) -> None:
        for key in ("what", "figure", "source", "metric", "mechanism", "against"):
            text = getattr(self, key)
            if isinstance(text, str) and not text.strip():
                raise ValueError(f"{key}: must not be empty")
        if isinstance(self.figure, float) and self.figure != self.figure:
            raise ValueError("figure: nan will not do; write a number or the source's words")
        if self.vcpus is not None and self.vcpus < 1:
            raise ValueError(f"vcpus: {self.vcpus} will not do; use 1 or more")
        if self.parameters and self.mechanism is None:
            raise ValueError("parameters: need the mechanism that they are of")
        if self.against is not None and self.metric is None:
            raise ValueError("against: needs the metric of which it is a difference")


def decode_published(table: Any, *, where: str) -> Published:
    """One `[[published]]` table.  Raises `ConfigError` naming `where` and the key."""
    return decode_parameters(Published, table, where=where)


def encode_published(published: Published) -> Mapping[str, Any]:
    """The table that `decode_published` turns into an equal one."""
    encoded = encode_parameters(published)
    if not published.parameters:
        del encoded["parameters"]
    return encoded
