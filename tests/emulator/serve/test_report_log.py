"""`reports.csv`, and a disk that is full."""

from pathlib import Path

import numpy as np
import pytest

from emulator.errors import ConfigError
from emulator.serve.report_log import ReportLog


def test_every_range_is_a_line(tmp_path: Path) -> None:
    with ReportLog(tmp_path / "reports.csv") as log:
        log.add(1.5, 0, np.array([4096, 1 << 40], "u8"), np.array([4096, 8192], "u8"))
        log.add(2.0, 1, np.array([0], "u8"), np.array([4096], "u8"))
    assert (tmp_path / "reports.csv").read_text() == (
        "time_s,report,addr,len\n"
        "1.500000,0,4096,4096\n"
        "1.500000,0,1099511627776,8192\n"
        "2.000000,1,0,4096\n"
    )


def test_it_must_be_possible_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        ReportLog(tmp_path / "none" / "reports.csv")


def test_a_full_disk_does_not_end_the_service() -> None:
    with ReportLog(Path("/dev/full")) as log:
        log.add(0.0, 0, np.array([0], "u8"), np.array([4096], "u8"))
        assert log.left_out == 1


def test_beyond_its_limit_ranges_are_only_counted(tmp_path: Path) -> None:
    with ReportLog(tmp_path / "reports.csv", lines_max=3) as log:
        for report in range(3):
            log.add(1.0, report, np.array([0, 4096], "u8"), np.array([4096, 4096], "u8"))
        assert log.left_out == 3
    lines = (tmp_path / "reports.csv").read_text().splitlines()
    assert lines[1:] == ["1.000000,0,0,4096", "1.000000,0,4096,4096", "1.000000,1,0,4096"]
