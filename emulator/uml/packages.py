"""What the real guest is made from: programs that the machine's packages install."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from emulator.errors import MachineLacks

_MODULES: Final = Path("/usr/lib/uml/modules")
_BALLOON: Final = "kernel/drivers/virtio/virtio_balloon.ko"
_ANSWER_S_MAX: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """Where they are."""

    kernel: Path  # linux.uml
    release: str  # of that kernel, such as 6.1.176
    busybox: Path  # linked statically: the guest has no libraries
    balloon: Path  # virtio_balloon.ko of that kernel; everything it needs is built in

    @classmethod
    def find(cls, *, path: str | None = None, modules: Path = _MODULES) -> Self:
        """Find them in `path` (None: PATH) and under `modules`.

        Raises MachineLacks that names the packages to install.
        """
        kernel, busybox = (shutil.which(name, path=path) for name in ("linux.uml", "busybox"))
        release = None if kernel is None else _release(kernel)
        balloon = modules / str(release) / _BALLOON
        missing = {
            "user-mode-linux": not balloon.is_file(),
            "busybox-static": busybox is None or not _is_static(Path(busybox)),
        }
        if any(missing.values()) or kernel is None or busybox is None or release is None:
            raise MachineLacks(_remedy(missing))
        return cls(kernel=Path(kernel), release=release, busybox=Path(busybox), balloon=balloon)


def _remedy(missing: Mapping[str, bool]) -> str:
    names = " ".join(name for name, lacks in missing.items() if lacks)
    return (
        f"a real Linux guest needs packages that are not installed: {names}; "
        f"apt-get install {names} (or the like)"
    )


def _release(kernel: str) -> str | None:
    """What the kernel says it is; None if it does not run here."""
    try:
        said = subprocess.run(
            [kernel, "--version"], capture_output=True, text=True, timeout=_ANSWER_S_MAX
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"\d+\.\d+\S*", said)
    return None if found is None else found.group()


def _is_static(program: Path) -> bool:
    """Whether an ELF file names no interpreter (PT_INTERP), and so needs no libraries."""
    content = program.read_bytes()[:4096]
    return content.startswith(b"\x7fELF") and b"/ld-" not in content
