"""Compressed, cut, damaged and impossible files."""

import gzip
import lzma
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from emulator.traces.layout import FREE
from emulator.traces.reader import TraceError, read_trace
from tests.emulator.traces.printed import Event, text_of

EVENTS = [Event(1000 * i, 977 * i % 65_521, i % 3, FREE, 0, 0) for i in range(1, 301)]
TEXT = text_of(EVENTS)
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04"


def zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(text)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "named.without.a.hint"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_files_are_known_by_their_first_bytes(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, COMPRESSORS[name](TEXT))
    seen = read_trace(path).statistics
    assert (seen.events, seen.compression, seen.truncated) == (300, name, False)
    assert (seen.file_bytes, seen.text_bytes) == (path.stat().st_size, len(TEXT))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_streams_that_follow_each_other_are_one_text(tmp_path: Path, name: str) -> None:
    compress = COMPRESSORS[name]
    middle = len(TEXT) // 2
    data = compress(TEXT[:middle]) + compress(b"") + compress(TEXT[middle:])
    seen = read_trace(write(tmp_path, data)).statistics
    assert (seen.events, seen.unreadable_lines, seen.text_bytes) == (300, 0, len(TEXT))
    padded = read_trace(write(tmp_path, data + b"\0" * 8)).statistics
    assert (padded.events, padded.truncated) == (300, False)


def test_a_skippable_zstd_frame_is_skipped(tmp_path: Path) -> None:
    data = SKIPPABLE_FRAME + zstd(TEXT) + SKIPPABLE_FRAME
    seen = read_trace(write(tmp_path, data)).statistics
    assert (seen.events, seen.compression, seen.truncated) == (300, "zst", False)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_stream_that_ends_early_is_read_up_to_there(tmp_path: Path, name: str) -> None:
    draw = random.Random(1)  # Text that compresses badly fills several blocks.
    events = [Event(1000 * i, draw.getrandbits(38), 0, FREE, 0, 0) for i in range(9000)]
    data = COMPRESSORS[name](text_of(events))
    seen = read_trace(write(tmp_path, data[: len(data) * 3 // 4])).statistics
    assert seen.truncated
    assert 1000 < seen.events < 9000


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_stream_that_ends_before_any_event_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, COMPRESSORS[name](TEXT)[:12])
    with pytest.raises(TraceError, match="the compressed data end before any text"):
        read_trace(path)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damaged_data_are_refused(tmp_path: Path, name: str) -> None:
    data = bytearray(COMPRESSORS[name](TEXT))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    path = write(tmp_path, bytes(data))
    with pytest.raises(TraceError, match=rf"its {name} data are damaged before byte \d+ .*anew$"):
        read_trace(path)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_rubbish_behind_a_stream_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, COMPRESSORS[name](TEXT) + b"not a stream at all")
    with pytest.raises(TraceError, match="damaged"):
        read_trace(path)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_nothing_is_empty(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, COMPRESSORS[name](b""))
    with pytest.raises(TraceError, match="empty; record"):
        read_trace(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x17\x08Dtracing6\0\0\0", "trace-cmd's binary file, not text; print it with `trace-cmd"),
        (b"PERFILE2h\0\0\0", "perf's binary file, not text; print it with `perf script -i"),
        (bytes(range(256)) * 40, "not text; give a trace as ftrace"),
        (zstd(bytes(range(256)) * 40), "not text; give a trace as ftrace"),
    ],
)
def test_binary_files_are_refused_with_a_remedy(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(TraceError, match=message) as refused:
        read_trace(write(tmp_path, data))
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere: no such file; name a recorded trace$"):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(TraceError, match="a directory; name a recorded trace in it"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="cannot be read: Not a directory"):
        read_trace(write(tmp_path, TEXT) / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    path.chmod(0)
    with pytest.raises(TraceError, match="may not be read"):
        read_trace(path)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(zstd(TEXT),))
    writer.start()
    told: list[int | None] = []
    trace = read_trace(path, progress=lambda done, of: told.append(of))
    writer.join()
    assert trace.statistics.events == 300
    assert set(told) == {None}
