"""The text of a file, plain or compressed, piece by piece.

What a file is compressed with is seen from its first bytes, never from its name.  Several
compressed streams may follow each other (`cat a.zst b.zst`, `pzstd`, `pigz`).  A stream that ends
early is read up to there.  Memory does not depend on the file: `_COMPRESSED_PIECE_BYTES` of it are
taken at a time, and even the densest zstd stream makes no more than 128 MiB of that.
"""

import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import zstandard

_PLAIN_PIECE_BYTES: Final = 1 << 18
_COMPRESSED_PIECE_BYTES: Final = 1 << 12
_XZ_MEMORY_BYTES_MAX: Final = 1 << 29

_COMPRESSIONS: Final[dict[str, tuple[bytes, Callable[[], Any]]]] = {
    "gz": (b"\x1f\x8b\x08", lambda: zlib.decompressobj(wbits=31)),
    "xz": (
        b"\xfd7zXZ\x00",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES_MAX),
    ),
    "zst": (b"\x28\xb5\x2f\xfd", lambda: zstandard.ZstdDecompressor().decompressobj()),
}
_ZSTD_SKIPPABLE: Final = (bytes(range(0x50, 0x60)), b"\x2a\x4d\x18")  # As pzstd writes first.
_BINARY_TRACES: Final = (
    (b"\x17\x08\x44tracing", "trace-cmd's binary file", "trace-cmd report"),
    (b"PERFILE2", "perf's binary file", "perf script -i"),
)
_SNIFFED_BYTES: Final = 4096


class TraceError(ValueError):
    """A trace that cannot be used: one line that names the file, the fault and what would work."""


def _compression_of(head: bytes) -> str | None:
    for name, (magic, _) in _COMPRESSIONS.items():
        if head.startswith(magic):
            return name
    first, rest = _ZSTD_SKIPPABLE
    if head[:1] and head[0] in first and head[1:4] == rest:
        return "zst"
    return None


class TextFile:
    """The text in the file at `path`.

    Attributes:
        path: as given.
        size_bytes: of the file; None for a pipe.
        read_bytes: of the file, so far.
        compression: "gz", "xz", "zst", or None; known once `pieces` has begun.
        truncated: whether a compressed stream ended early; known once `pieces` is exhausted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes: int | None = None
        self.read_bytes = 0
        self.compression: str | None = None
        self.truncated = False

    def pieces(self) -> Iterator[bytes]:
        """The text, in pieces of any size.  To be taken once.

        Raises:
            TraceError: the file cannot be opened or read, its compressed data are damaged, or it
                is not text.
        """
        path = self.path
        try:
            with path.open("rb") as file:
                size_bytes = path.stat().st_size if path.is_file() else None
                self.size_bytes = size_bytes
                yield from self._pieces_of(file)
        except FileNotFoundError:
            raise TraceError(f"{path}: no such file; name a recorded trace") from None
        except IsADirectoryError:
            raise TraceError(f"{path}: a directory; name a recorded trace in it") from None
        except PermissionError:
            raise TraceError(f"{path}: may not be read; give yourself the permission") from None
        except OSError as error:
            reason = error.strerror or "read error"
            raise TraceError(f"{path}: cannot be read: {reason}; copy the file anew") from None

    def _pieces_of(self, file: BinaryIO) -> Iterator[bytes]:
        head = file.read(_SNIFFED_BYTES)
        self.read_bytes = len(head)
        self.compression = _compression_of(head)
        if self.compression is None:
            texts = self._plain(file, head)
        else:
            texts = self._decompressed(file, head, self.compression)
        sniffed = False
        for text in texts:
            if not sniffed and text:
                self._refuse_binary(text[:_SNIFFED_BYTES])
                sniffed = True
            yield text

    def _plain(self, file: BinaryIO, head: bytes) -> Iterator[bytes]:
        piece = head
        while piece:
            yield piece
            piece = file.read(_PLAIN_PIECE_BYTES)
            self.read_bytes += len(piece)

    def _decompressed(self, file: BinaryIO, head: bytes, compression: str) -> Iterator[bytes]:
        _, new_stream = _COMPRESSIONS[compression]
        stream: Any = None
        piece = head
        while piece:
            if stream is None:
                piece = piece.lstrip(b"\0")  # Padding between streams.
                stream = new_stream() if piece else None
            if stream is not None:
                try:
                    text = stream.decompress(piece)
                except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                    raise TraceError(
                        f"{self.path}: its {compression} data are damaged before byte "
                        f"{self.read_bytes} ({error}); copy or record the trace anew"
                    ) from None
                yield text
                if stream.eof:
                    piece, stream = stream.unused_data, None
                    if piece:
                        continue
            piece = file.read(_COMPRESSED_PIECE_BYTES)
            self.read_bytes += len(piece)
        self.truncated = stream is not None

    def _refuse_binary(self, head: bytes) -> None:
        for magic, what, command in _BINARY_TRACES:
            if head.startswith(magic):
                raise TraceError(
                    f"{self.path}: {what}, not text; print it with `{command} {self.path}`"
                )
        if b"\0" in head:
            raise TraceError(
                f"{self.path}: not text; give a trace as ftrace, `trace-cmd report` or "
                "`perf script` print it, plain or as .gz, .xz or .zst"
            )
