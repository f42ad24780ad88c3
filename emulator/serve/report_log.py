"""`reports.csv`: every range that a guest reported, as it came.

time_s    since the guest attached
report    number of the request; ranges of one request have the same
addr      guest-physical address, bytes
len       bytes

A service may last for months: the file ends after LINES_MAX ranges, and further ones are counted.
"""

from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

import numpy.typing as npt

from emulator.errors import ConfigError

HEADER: Final = "time_s,report,addr,len"
LINES_MAX: Final = 1_000_000  # Some 40 MB.


class ReportLog:
    """Writes the file while the run goes on; what a killed run has said is in it.

    left_out:  ranges that are not in the file: beyond its limit, or of a disk that was full
    """

    def __init__(self, path: Path, *, lines_max: int = LINES_MAX) -> None:
        """Raises ConfigError if the file cannot be written."""
        try:
            self._file: FileIO | None = path.open("wb", buffering=0)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
        self.left_out = 0
        self._room = lines_max
        self._write(f"{HEADER}\n")

    def add(
        self, time_s: float, report: int, addr: npt.NDArray[Any], length: npt.NDArray[Any]
    ) -> None:
        """One report: u8[n] each."""
        start = f"{time_s:.6f},{report}"
        room = min(self._room, len(addr))
        ranges = zip(addr[:room].tolist(), length[:room].tolist(), strict=True)
        written = self._write("".join(f"{start},{at},{size}\n" for at, size in ranges))
        self._room -= room
        self.left_out += len(addr) - room * written

    def close(self) -> None:
        """Close the file; once is enough."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, text: str) -> bool:
        try:
            if self._file is not None:
                self._file.write(text.encode())
        except OSError:  # A full disk must not end the guest's service; the file ends here.
            self.close()
        return self._file is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
