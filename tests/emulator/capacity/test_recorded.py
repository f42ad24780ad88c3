"""Where footprints come from: run folders, several guests, comparisons, tables of one's own."""

from pathlib import Path

import msgspec
import pytest

from emulator.capacity.capacities import (
    CapacityOf,
    capacities_of,
    figures_of,
    from_json,
    require_answer,
)
from emulator.capacity.figures import CapacityFigures
from emulator.capacity.recorded import capacity_in, read_recorded, recorded_in
from emulator.compare.comparison import to_json
from emulator.config.capacity import CapacityConfig
from emulator.config.scenario import MechanismConfig, Scenario
from emulator.errors import ConfigError
from emulator.guests_series import write_guests_series
from emulator.run_folder import CAPACITY, COMPARISON, SERIES, SERIES_GUESTS, RunFolder
from emulator.summary import SeriesRow
from tests.support.sample_comparison import sample_comparison
from tests.support.sample_run import sample_folder, sample_scenario, sample_series

GIB = 1 << 30
CONFIG = CapacityConfig(host_bytes=16 * GIB, probabilities=(0.1,), resamples=100)


def under(name: str, **parameters: object) -> Scenario:
    mechanism = MechanismConfig(name=name, parameters=parameters)
    return msgspec.structs.replace(sample_scenario(), mechanism=mechanism)


def test_runs_of_one_mechanism_are_put_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sample_folder(tmp_path / name, scenario=under("off"))
    sample_folder(tmp_path / "c", scenario=under("page_reporting", order=0))
    found = read_recorded([tmp_path / name for name in "abc"])
    assert {label: len(recordings) for label, recordings in found.items()} == {
        "off": 2,
        "page_reporting": 1,
    }
    ((times, sizes),) = found["off"][0]
    rows = RunFolder.open(tmp_path / "a").read_series()
    assert times == [row.time_s for row in rows]
    assert sizes == [row.resident_bytes for row in rows]


def test_other_parameters_are_another_mechanism(tmp_path: Path) -> None:
    sample_folder(tmp_path / "a", scenario=under("page_reporting", order=0))
    sample_folder(tmp_path / "b", scenario=under("page_reporting", order=9, delay="1s"))
    assert list(read_recorded([tmp_path / "a", tmp_path / "b"])) == [
        "page_reporting(order=0)",
        "page_reporting(order=9,delay=1s)",
    ]


def test_every_guest_of_a_run_is_a_recording(tmp_path: Path) -> None:
    sample_folder(tmp_path, scenario=under("off"))
    guests = [sample_series(), sample_series(stays_bytes=0)]
    (tmp_path / SERIES_GUESTS).write_text(write_guests_series(guests))
    (found,) = read_recorded([tmp_path])["off"]
    assert [sizes for _, sizes in found] == [[row.resident_bytes for row in g] for g in guests]


def test_a_comparison_has_the_names_of_its_mechanisms(tmp_path: Path) -> None:
    comparison = sample_comparison(tmp_path)
    (tmp_path / COMPARISON).write_text(to_json(comparison))
    found = read_recorded([tmp_path])
    assert found == recorded_in(comparison, tmp_path)
    assert {label: len(recordings) for label, recordings in found.items()} == {
        "off": 4,
        "page_reporting": 4,
        "page_reporting(order=0,delay=100ms)": 4,
        "bitmap": 1,  # It failed in the second repeat.
    }


def test_a_table_of_ones_own_needs_two_columns(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("host,resident_bytes,time_s\nx,1e9,0\nx,,1\nx,2000000000,2.5\n")
    assert read_recorded([own]) == {"recorded": [[([0.0, 2.5], [1e9, 2e9])]]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no column resident_bytes and no column time_s"),
        ("time_s,rss\n0,1\n", "has no column resident_bytes; its first line must name"),
        ("time_s,resident_bytes\n0,much\n", "line 2: '0' and 'much' are not seconds and bytes"),
        ("time_s,resident_bytes\n0,-1\n", "line 2: 0 s and -1 bytes cannot be"),
        ("time_s,resident_bytes\n0,nan\n", "cannot be"),
        ("time_s,resident_bytes\n0\n", "no sample"),
        ("time_s,resident_bytes\n", "no sample of resident memory"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    own = tmp_path / "own.csv"
    own.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says) as error:
        read_recorded([own])
    assert "\n" not in str(error.value) and str(own) in str(error.value)


def test_a_run_without_samples_is_named(tmp_path: Path) -> None:
    folder = sample_folder(tmp_path, scenario=under("off"))
    folder.write_series([SeriesRow(time_s=0.0)])
    with pytest.raises(ConfigError, match=f"{SERIES}: has no sample of resident memory"):
        read_recorded([tmp_path])


def test_what_was_swapped_out_of_a_guest_counts_as_held(tmp_path: Path) -> None:
    folder = sample_folder(tmp_path, scenario=under("off"))
    rows = [SeriesRow(time_s=float(at), resident_bytes=8, swapped_bytes=at) for at in range(3)]
    folder.write_series(rows)
    assert read_recorded([tmp_path]) == {"off": [[([0.0, 1.0, 2.0], [8.0, 9.0, 10.0])]]}


def test_what_a_scenario_asks_is_made_once_and_kept(tmp_path: Path) -> None:
    scenario = msgspec.structs.replace(under("off"), capacity=CONFIG)
    folder = sample_folder(tmp_path, scenario=scenario)
    assert capacity_in(folder, under("off")) == []
    assert not (tmp_path / CAPACITY).exists()
    made = capacity_in(folder, scenario)
    assert [one.label for one in made] == ["off"]
    kept = from_json((tmp_path / CAPACITY).read_text(), where="x")
    assert kept == made
    (tmp_path / SERIES).unlink()
    assert capacity_in(folder, scenario) == made
    (tmp_path / CAPACITY).write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        capacity_in(folder, scenario)


def test_one_mechanism_that_cannot_be_answered_does_not_hide_the_others(tmp_path: Path) -> None:
    times = [0.0, 1.0, 2.0]
    recorded = {
        "small": [[(times, [1.0 * GIB] * 3)]],
        "large": [[(times, [17.0 * GIB] * 3)]],
    }
    small, large = capacities_of(recorded, CONFIG, seed=1)
    assert small.found is not None and small.found.fits[0].fits.guests == 16
    assert large.found is None and "less than the 17408MiB" in large.why
    require_answer([small, large])
    assert figures_of([large]) == figures_of([]) == CapacityFigures()
    figures = figures_of([small])
    assert (figures.host_bytes, figures.recordings) == (16 * GIB, 1)
    assert (figures.guest_mean_bytes, figures.guests_by_peak) == (GIB, 16)
    (fit,) = figures.fits
    assert (fit.probability, fit.guests, fit.guests_low, fit.guests_high) == (0.1, 16, 16, 16)
    with pytest.raises(ConfigError, match="large: host: 16GiB are less"):
        require_answer([CapacityOf(label="large", why=large.why)])
