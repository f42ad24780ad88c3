"""`reports.csv`: every range that a guest reported, as it came.

time_s    since the guest attached
report    number of the request; ranges of one request have the same
addr      guest-physical address, bytes
len       bytes
"""

from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

import numpy.typing as npt

from emulator.errors import ConfigError

HEADER: Final = "time_s,report,addr,len"


class ReportLog:
    """Writes the file while the run goes on; what a killed run has said is in it."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if the file cannot be written."""
        try:
            self._file: FileIO | None = path.open("wb", buffering=0)
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

    def close(self) -> None:
        """Close the file; once is enough."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, text: str) -> None:
        try:
            if self._file is not None:
                self._file.write(text.encode())
        except OSError:  # A full disk must not end the guest's service; the file ends here.
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
