"""The samples of each guest, as they are written and read."""

import pytest

from emulator.errors import ConfigError
from emulator.guests_sampler import sum_of_rows
from emulator.guests_series import read_guests_series, write_guests_series
from emulator.summary import SeriesRow


def rows(size: int) -> list[SeriesRow]:
    return [
        SeriesRow(time_s=at_s, resident_bytes=size + at_s, operations=at_s) for at_s in (1, 2, 3)
    ]


def test_what_is_written_is_read() -> None:
    guests = [rows(100 * index) for index in range(11)]
    text = write_guests_series(guests)
    assert text.splitlines()[0].startswith("guest,time_s,resident_bytes,")
    assert [line.split(",")[:3] for line in text.splitlines()[10:14]] == [
        ["9", "1", "901"],
        ["10", "1", "1001"],
        ["0", "2", "2"],
        ["1", "2", "102"],
    ]
    assert read_guests_series(text, where="here") == guests


@pytest.mark.parametrize(
    ("old", "new"), [("guest,", "number,"), ("\n1,", "\n7,"), ("guest,time_s", "guest,at")]
)
def test_a_damaged_file_is_named(old: str, new: str) -> None:
    text = write_guests_series([rows(1), rows(2)])
    with pytest.raises(ConfigError, match=r"^run/series-guests\.csv: damaged: "):
        read_guests_series(text.replace(old, new), where="run/series-guests.csv")


def test_a_sum_has_only_what_all_have() -> None:
    added = sum_of_rows(
        [
            SeriesRow(time_s=1.5, resident_bytes=3, reports=4, balloon_bytes=5),
            SeriesRow(time_s=1.5, resident_bytes=30, reports=0),
        ]
    )
    assert added == SeriesRow(time_s=1.5, resident_bytes=33, reports=4)
