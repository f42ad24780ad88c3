"""`reports.csv`: every range that a guest reported, as it came.

time_s    since the guest attached
report    number of the request; ranges of one request have the same
addr      guest-physical address, bytes
len       bytes
"""

from pathlib import Path
from typing import Any, Final, Self, TextIO

import numpy.typing as npt

from emulator.errors import ConfigError

HEADER: Final = "time_s,report,addr,len"


class ReportLog:
    """Writes the file while the run goes on; what a killed run has said is in it."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if the file cannot be written."""
        try:
            self._file: TextIO | None = path.open("w", encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
        self._write(f"{HEADER}\n")

    def add(
        self, time_s: float, report: int, addr: npt.NDArray[Any], length: npt.NDArray[Any]
    ) -> None:
        """One report: u8[n] each."""
        start = f"{time_s:.6f},{report}"
        ranges = zip(addr.tolist(), length.tolist(), strict=True)
        self._write("".join(f"{start},{at},{size}\n" for at, size in ranges))

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._on_file(self._file.flush)

    def _write(self, text: str) -> None:
        file = self._file
        if file is not None:
            self._on_file(lambda: file.write(text))

    def _on_file(self, act: Any) -> None:
        """A full disk must not end the guest's service; the file ends there."""
        try:
            act()
        except OSError:
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._on_file(self._file.close)
