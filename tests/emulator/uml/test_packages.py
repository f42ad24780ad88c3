"""What is missing is named, as the package to install."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from emulator.commands.application import cli
from emulator.errors import MachineLacks
from emulator.uml.packages import Packages
from emulator.uml.room import memory_folder


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def kernel(folder: Path, says: str) -> None:
    program(folder / "linux.uml", f"#!/bin/sh\necho {says}\n")


def module(folder: Path, release: str) -> None:
    path = folder / release / "kernel/drivers/virtio/virtio_balloon.ko"
    path.parent.mkdir(parents=True)
    path.touch()


def find(folder: Path) -> Packages:
    return Packages.find(path=str(folder), modules=folder / "modules")


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="apt-get install user-mode-linux busybox-static"):
        find(tmp_path)


def test_the_command_says_so_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["guest", "uml", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 3
    assert "apt-get install user-mode-linux busybox-static" in result.output
    assert list(tmp_path.iterdir()) == []


def test_all_is_there(tmp_path: Path) -> None:
    kernel(tmp_path, "6.1.999")
    module(tmp_path / "modules", "6.1.999")
    (tmp_path / "busybox").write_bytes(b"\x7fELF and no interpreter")
    (tmp_path / "busybox").chmod(0o755)
    found = find(tmp_path)
    assert found.release == "6.1.999"
    assert found.balloon.is_file()


def test_a_busybox_that_needs_libraries_will_not_do(tmp_path: Path) -> None:
    kernel(tmp_path, "6.1.999")
    module(tmp_path / "modules", "6.1.999")
    (tmp_path / "busybox").write_bytes(b"\x7fELF .. /lib64/ld-linux-x86-64.so.2")
    (tmp_path / "busybox").chmod(0o755)
    with pytest.raises(MachineLacks, match="not installed: busybox-static;"):
        find(tmp_path)


@pytest.mark.parametrize("says", ["6.1.998", "nothing"])
def test_modules_of_another_kernel_will_not_do(tmp_path: Path, says: str) -> None:
    kernel(tmp_path, says)
    module(tmp_path / "modules", "6.1.999")
    with pytest.raises(MachineLacks, match="user-mode-linux"):
        find(tmp_path)


def test_memory_goes_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    assert memory_folder(1 << 20) != tmp_path / "none"
    with pytest.raises(MachineLacks, match=r"none cannot be used .* set TMPDIR"):
        memory_folder(1 << 60)
    assert not os.listdir(tmp_path)  # noqa: PTH208
