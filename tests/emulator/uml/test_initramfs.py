"""The archive is what the format says, and what cpio reads."""

import shutil
import stat
import subprocess

import pytest

from emulator.uml.initramfs import Entry, archive

ENTRIES = [
    Entry(name="bin", mode=stat.S_IFDIR | 0o755),
    Entry(name="bin/tool", mode=stat.S_IFREG | 0o755, content=b"12345"),
    Entry(name="empty", mode=stat.S_IFREG | 0o600),
]


def test_each_header_and_content_is_padded_to_four_bytes() -> None:
    data = archive(ENTRIES[1:2])
    name = b"bin/tool\0"
    assert data[:6] == b"070701"
    fields = [int(data[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
    inode, mode, links, size, name_size = (fields[i] for i in (0, 1, 4, 6, 11))
    assert (inode, mode, links, size, name_size) == (1, 0o100755, 1, 5, len(name))
    begin = -(-(110 + len(name)) // 4) * 4
    assert data[110 : 110 + len(name)] == name
    assert data[begin : begin + 8] == b"12345\0\0\0"
    assert data[begin + 8 : begin + 14] == b"070701"
    assert data[begin + 8 + 110 :].startswith(b"TRAILER!!!\0")
    assert len(data) % 4 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it() -> None:
    listed = subprocess.run(
        ["cpio", "-itv", "--quiet"], input=archive(ENTRIES), capture_output=True, check=True
    ).stdout.decode()
    lines = [line.split() for line in listed.splitlines()]
    assert [(words[0], words[4], words[-1]) for words in lines] == [
        ("drwxr-xr-x", "0", "bin"),
        ("-rwxr-xr-x", "5", "bin/tool"),
        ("-rw-------", "0", "empty"),
    ]
