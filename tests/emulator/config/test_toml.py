import datetime
import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.config.toml import dumps, write_string

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = (
    st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | _TEXT
    | st.dates()
    | st.times().map(lambda t: t.replace(tzinfo=None))
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=12
)


@given(st.dictionaries(_TEXT, _VALUES))
def test_what_is_written_reads_as_the_same(document: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(document)) == document


def test_tables_come_after_values() -> None:
    text = dumps({"guest": {"vcpus": 2}, "expect": [{"metric": "a"}], "question": 'why "so"?'})
    assert text == (
        'question = "why \\"so\\"?"\n\n[guest]\nvcpus = 2\n\n[[expect]]\nmetric = "a"\n'
    )


def test_numbers_that_are_none_are_written() -> None:
    read = tomllib.loads(dumps({"a": math.nan, "b": -math.inf}))
    assert math.isnan(read["a"]) and read["b"] == -math.inf


def test_none_has_no_form() -> None:
    with pytest.raises(TypeError, match="no form for None"):
        dumps({"a": None})


def test_a_string_is_quoted() -> None:
    assert write_string("a\x00\x7f\n\\") == '"a\\u0000\\u007F\\n\\\\"'
