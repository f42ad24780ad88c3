from pathlib import Path

import pytest

from emulator.errors import MachineLacks
from emulator.machine_check import (
    available_bytes,
    check_machine,
    reports_free_pages,
    require_machine,
)


def test_every_line_says_what_and_what_was_found() -> None:
    checks = check_machine()
    names = [check.what for check in checks]
    assert len(set(names)) == len(names)
    wanted = {"system", "python", "memfd_create", "eventfd", "pidfd_open", "punch hole"}
    assert wanted | {"/dev/shm", "limit of open files", "cores", "MADV_COLLAPSE"} <= set(names)
    assert all(check.found and "\n" not in check.found for check in checks)
    assert all(check.remedy for check in checks if check.enough is False)


def test_a_hole_was_really_punched() -> None:
    found = next(check.found for check in check_machine() if check.what == "punch hole")
    assert found.startswith("works: st_blocks ") and found.endswith(" -> 0")


def test_probes_leave_no_descriptor_behind() -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    check_machine()
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


def test_a_run_is_refused_exactly_if_a_required_line_fails() -> None:
    missing = [check for check in check_machine() if check.blocks]
    if missing:
        with pytest.raises(MachineLacks, match=missing[0].what):
            require_machine()
    else:
        require_machine()


def test_available_memory_is_part_of_all_memory() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total_bytes = int(lines["MemTotal"].split()[0]) * 1024
    assert 0 < available_bytes() <= total_bytes


@pytest.mark.parametrize(("features", "reports"), [("01100101", True), ("01100001", False)])
def test_a_guest_that_reports_its_free_pages_is_known(
    tmp_path: Path, features: str, reports: bool
) -> None:
    assert not reports_free_pages(tmp_path)
    for name, device, bits in (("virtio0", "0x0002", "1" * 64), ("virtio1", "0x0005", features)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "device").write_text(f"{device}\n")
        (tmp_path / name / "features").write_text(f"{bits}{'0' * (64 - len(bits))}\n")
    assert reports_free_pages(tmp_path) is reports
