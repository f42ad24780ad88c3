"""What a source published, as a scenario holds it."""

from typing import Any

import pytest

from emulator.config.published import Published, decode_published, encode_published
from emulator.errors import ConfigError

WHOLE = {
    "what": "16 vCPUs",
    "figure": "up to -2 %",
    "source": "A. Duyck, v2",
    "metric": "workload.pages_per_s",
    "mechanism": "page_reporting",
    "parameters": {"order": 0, "delay": "100ms"},
    "against": "off",
    "vcpus": 16,
}


@pytest.mark.parametrize(
    "table",
    [
        WHOLE,
        {"what": "a", "figure": 3, "source": "b"},
        {"what": "a", "figure": -0.8, "source": "b", "metric": "host.resident_bytes_end"},
    ],
)
def test_what_is_written_reads_as_the_same(table: dict[str, Any]) -> None:
    published = decode_published(table, where="published.0")
    assert encode_published(published) == table
    assert published == Published(**table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": " "}, "published.3.what: must not be empty"),
        ({"figure": ""}, "published.3.figure: must not be empty"),
        ({"figure": True}, "published.3.figure: True will not do: expected int | float | str"),
        ({"figure": float("nan")}, "published.3.figure: nan will not do"),
        ({"source": 7}, "published.3.source: 7 will not do: expected str"),
        ({"sorce": "x"}, "published.3.sorce: unknown key; did you mean 'source'?"),
        ({"vcpus": 0}, "published.3.vcpus: 0 will not do; use 1 or more"),
        ({"parameters": 3}, "published.3.parameters: 3 will not do: expected object"),
        ({"mechanism": None}, "published.3.parameters: need the mechanism"),
        ({"metric": None}, "published.3.against: needs the metric"),
        ({"source": None}, "published.3.source: missing; the key must be given"),
    ],
)
def test_a_bad_table_is_one_line_that_names_the_key(changes: dict[str, Any], message: str) -> None:
    table = {key: value for key, value in (WHOLE | changes).items() if value is not None}
    with pytest.raises(ConfigError) as raised:
        decode_published(table, where="published.3")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
