"""The one decorator under which every hot path is compiled.

A kernel is a module-level function over arrays and numbers.  It is compiled by numba on its first
call and kept on disk.  Numba's own disk cache is keyed by the function's file alone, so that a
changed callee, module constant or `NUMBA_BOUNDSCHECK` goes on running the old machine code; here
the folder of the cache is named by a digest of every source file of the packages that hold
kernels, of the flags and of the versions, and is therefore never stale.

Environment:
    NUMBA_BOUNDSCHECK=1       compiled with bounds checks (a folder of its own)
    NUMBA_DISABLE_JIT=1       not compiled at all: the same Python source is interpreted
    EMULATOR_CACHE_DIR=DIR    where compiled kernels are kept (default: ~/.cache/free-page-lab)
    EMULATOR_KERNELS=FILE     a file of kernels outside these packages: a user's own mechanism
"""

import hashlib
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import llvmlite
import numba
import numpy as np
from numba.core import config as numba_config
from numba.core import types

F = TypeVar("F", bound=Callable[..., Any])

# Kernels compute in 64 bits: every field is widened as it is read, or unsigned 32-bit arithmetic
# would wrap where kernels are interpreted.  `Any`, because to a type checker numpy's is no int.
i64: Any = np.int64

OWN_KERNELS_VARIABLE: Final = "EMULATOR_KERNELS"
_PACKAGES: Final = ("devices", "emulator", "tests")
_ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS_KEPT_MAX: Final = 32  # A folder is some 10 MiB; every edit of a kernel makes a new one.


def interpreted() -> bool:
    """Whether kernels run as plain Python (`NUMBA_DISABLE_JIT=1`)."""
    return bool(numba_config.DISABLE_JIT)


def is_kernel_source(path: Path) -> bool:
    """Whether a kernel may be compiled from this file: by its name, so that a test can hold it."""
    return (
        path.name in ("layout.py", "kernels.py")
        or path.name.endswith("_kernels.py")
        or path.parent.name in ("memory", "mechanisms")
    )


def _kernel_sources() -> Iterable[Path]:
    for package in _PACKAGES:
        yield from filter(is_kernel_source, sorted((_ROOT / package).rglob("*.py")))


def _own_kernels() -> Path | None:
    """The user's file of kernels; None without one."""
    named = os.environ.get(OWN_KERNELS_VARIABLE)
    return Path(named).resolve() if named and Path(named).is_file() else None


def _digest() -> str:
    h = hashlib.blake2b(digest_size=10)
    for part in (
        numba.__version__,
        llvmlite.__version__,
        platform.machine(),
        platform.python_version(),
        str(bool(numba_config.BOUNDSCHECK)),
        str(numba_config.OPT),
    ):
        h.update(part.encode() + b"\0")
    for path in (*_kernel_sources(), *filter(None, [OWN_KERNELS])):
        h.update(path.name.encode() + b"\0")
        h.update(path.read_bytes())
    return h.hexdigest()


def _cache_root() -> Path:
    named = os.environ.get("EMULATOR_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "free-page-lab"


def _drop_old_folders(root: Path, keep: Path) -> None:
    """Keep the newest folders only.  Losing a race for one of them is harmless."""
    import shutil

    folders = [p for p in root.iterdir() if p.is_dir() and p != keep]
    folders.sort(key=lambda p: p.stat().st_mtime)
    for folder in folders[: max(0, len(folders) - (FOLDERS_KEPT_MAX - 1))]:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_own(folder: Path, owner: int) -> None:
    import shutil

    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _open_cache() -> Path:
    """Point numba at the folder for the present sources and flags, and return it."""
    root = _cache_root()
    folder = root / _digest()
    try:
        fresh = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            _drop_old_folders(root, folder)
    except OSError:  # No home, or a read-only one: compiled code then lives as long as we do.
        import atexit
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="free-page-lab-"))
        atexit.register(_remove_own, folder, os.getpid())
    numba_config.CACHE_DIR = str(folder)
    return folder


OWN_KERNELS: Final = _own_kernels()
CACHE_FOLDER: Final = _open_cache()


def _compile_once_for_all_constants(dispatcher: Any) -> None:
    """Have a kernel that calls this one compile it for the types of what it passes.

    By itself, numba compiles `f(x, 0)`, `f(x, 1)` and `f(x, y)` apart, with all that `f` calls: a
    sixth of all compiling.  The name of a record's field stays a constant: atomics need it.
    """
    found = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return found(tuple(map(_without_value, args)), {k: _without_value(kws[k]) for k in kws})

    dispatcher.get_call_template = get_call_template


def _without_value(given: Any) -> Any:
    constant = isinstance(given, types.IntegerLiteral | types.BooleanLiteral)
    return given.literal_type if constant else given


@overload
def kernel(function: F) -> F: ...
@overload
def kernel(*, inline: bool = False, inner: bool = False) -> Callable[[F], F]: ...
def kernel(function: F | None = None, *, inline: bool = False, inner: bool = False) -> Any:
    """Compile `function` when it is first called, and keep the machine code on disk.

    `inline=True` asks LLVM to inline it into every caller: for the few functions on the path of
    every page.  `inner=True`: called by other kernels only; without an entry from Python it
    compiles in half the time.  Kernels release the GIL, divide as C does, and allocate nothing:
    without numba's reference counts a call of one kernel by another costs a tenth.
    """

    def decorate(f: F) -> Any:
        compiled = numba.njit(
            cache=True,
            nogil=True,
            error_model="numpy",
            forceinline=inline,
            no_cfunc_wrapper=True,
            no_cpython_wrapper=inline or inner,
            _nrt=False,
        )(f)
        if not interpreted():
            _compile_once_for_all_constants(compiled)
        return compiled

    return decorate if function is None else decorate(function)
