"""What this machine can do and what is missing: `sysinfo`, and the check before a run.

Every probe tries the thing itself where that is cheap (a hole is really punched), and leaves
nothing behind.
"""

import ctypes
import importlib.metadata
import mmap
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emulator.config.units import write_size
from emulator.errors import MachineLacks

_PROBE_BYTES: Final = 1 << 20
_PUNCH_HOLE_KEEP_SIZE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_MADV_COLLAPSE: Final = 25
_MAP_FIXED: Final = 0x10
_HUGE_PAGE_BYTES: Final = 2 << 20
_SHM_FREE_BYTES_MIN: Final = 32 << 20  # Page array, rings and counters of a guest of a few GiB.
_MEMORY_BYTES_MIN: Final = 512 << 20
_FILES_MIN: Final = 256  # A few descriptors a process, for 64 vCPUs.
_PROCESSES_MIN: Final = 80
_THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
_VIRTIO: Final = Path("/sys/bus/virtio/devices")
_BALLOON_ID: Final = "0x0005"  # VIRTIO 1.3, section 5.5
_PAGE_REPORTING_BIT: Final = 5  # VIRTIO_BALLOON_F_PAGE_REPORTING


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `sysinfo`."""

    what: str
    found: str
    enough: bool | None  # None: nothing depends on it.
    remedy: str = ""  # What to do if it is not enough.
    required: bool = True  # Without it there is no run.

    @property
    def blocks(self) -> bool:
        """Whether no run is possible until this is mended."""
        return self.required and self.enough is False


def check_machine() -> list[Check]:
    """Probe everything, in the order in which it is shown.  Raises nothing."""
    if sys.platform != "linux":
        found = f"{platform.system()} {platform.release()}"
        return [Check("system", found, False, "needs Linux: run it in a Linux VM or container")]
    return [
        Check("system", f"Linux {platform.release()}", True),
        *_software(),
        *_system_calls(),
        *_resources(),
        *_huge_pages(),
        *_programs(),
    ]


def require_machine() -> None:
    """Raise `MachineLacks`, with the remedies, if a run is not possible on this machine."""
    missing = [check for check in check_machine() if check.blocks]
    if missing:
        raise MachineLacks("; ".join(f"{c.what}: {c.found}; {c.remedy}" for c in missing))


def available_bytes() -> int:
    """Memory that can be used without swapping, within this process's control group."""
    kib = _meminfo().get("MemAvailable", 0)
    return min([kib * 1024, *_control_group_limits()])


def describe_machine() -> dict[str, Any]:
    """CPUs, memory, processor and kernel, as `manifest.json` keeps them."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _cpu_model(),
        "architecture": platform.machine(),
        "memory_bytes": _meminfo().get("MemTotal", 0) * 1024,
        "memory_available_bytes": available_bytes(),
        "kernel": platform.release(),
        "transparent_hugepage": _chosen(_THP / "enabled"),
        "transparent_hugepage_shmem": _chosen(_THP / "shmem_enabled"),
        "reports_free_pages": reports_free_pages(),
    }


def reports_free_pages(devices: Path = _VIRTIO) -> bool:
    """Whether this machine is a guest that reports its free pages to a host of its own.

    Then memory that a benchmark has given back may be gone for good: a touch of it is a fault there
    as well, and figures of what refaulting costs hold the price of both.
    """
    for device in sorted(devices.glob("*")):
        bits = _read(device / "features").strip()
        if _read(device / "device").strip() == _BALLOON_ID:
            return bits[_PAGE_REPORTING_BIT : _PAGE_REPORTING_BIT + 1] == "1"
    return False


def describe_versions() -> dict[str, str]:
    """The versions that a run's figures depend on, as `manifest.json` keeps them."""
    packages = ("free-page-lab", "numpy", "numba", "trio", "msgspec")
    return {"python": platform.python_version()} | {p: _version(p) for p in packages}


def _software() -> list[Check]:
    architecture = platform.machine()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    checks = [
        Check(
            "architecture",
            architecture,
            architecture in ("x86_64", "aarch64"),
            "needs x86-64 or arm64",
        ),
        Check(
            "python",
            python,
            sys.version_info >= (3, 11) and sys.implementation.name == "cpython",
            "needs CPython 3.11 or newer",
        ),
    ]
    for package in ("numpy", "numba", "trio", "msgspec"):
        version = _version(package)
        checks.append(Check(package, version, version != "missing", f"pip install {package}"))
    return checks


def _system_calls() -> list[Check]:
    probes: tuple[tuple[str, Callable[[], str], str], ...] = (
        ("memfd_create", _try_memfd, "needs Linux 3.17, not forbidden by a seccomp filter"),
        ("eventfd", _try_eventfd, "needs a kernel with eventfd, not forbidden by seccomp"),
        ("pidfd_open", _try_pidfd, "needs Linux 5.3, not forbidden by a seccomp filter"),
        ("punch hole", _try_punch_hole, "needs a kernel with CONFIG_SHMEM and fallocate"),
    )
    checks = []
    for what, probe, remedy in probes:
        try:
            checks.append(Check(what, probe(), True))
        except (OSError, AttributeError) as error:
            checks.append(Check(what, f"does not work: {error}", False, remedy))
    return checks


def _resources() -> list[Check]:
    cores = len(os.sched_getaffinity(0))
    available = available_bytes()
    return [
        Check("cores", str(cores), None),
        Check(
            "memory available",
            f"{available >> 20}MiB",
            available >= _MEMORY_BYTES_MIN,
            f"needs {write_size(_MEMORY_BYTES_MIN)}: end other programs or raise the limit",
        ),
        _shared_memory(),
        _limit("open files", resource.RLIMIT_NOFILE, _FILES_MIN, "ulimit -n 1024"),
        _limit("processes", resource.RLIMIT_NPROC, _PROCESSES_MIN, "ulimit -u 1024"),
        _limit("locked memory", resource.RLIMIT_MEMLOCK, None, ""),
    ]


def _shared_memory() -> Check:
    remedy = (
        f"needs {write_size(_SHM_FREE_BYTES_MIN)} free: mount -o remount,size=1g /dev/shm, "
        "or start the container with --shm-size=1g"
    )
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError as error:
        return Check("/dev/shm", f"does not work: {error}", False, remedy)
    found = f"{usage.free >> 20}MiB free of {usage.total >> 20}MiB"
    return Check("/dev/shm", found, usage.free >= _SHM_FREE_BYTES_MIN, remedy)


def _limit(what: str, which: int, least: int | None, command: str) -> Check:
    soft = resource.getrlimit(which)[0]
    found = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if least is None:
        return Check(f"limit of {what}", found, None)
    enough = soft == resource.RLIM_INFINITY or soft >= least
    return Check(f"limit of {what}", found, enough, f"needs {least}: {command}")


def _huge_pages() -> list[Check]:
    try:
        collapse = Check("MADV_COLLAPSE", _try_collapse(), True, required=False)
    except OSError as error:
        remedy = "Linux 6.1 makes huge pages of guest RAM; without it pages are touched one by one"
        found = f"does not work: {error.strerror}"
        collapse = Check("MADV_COLLAPSE", found, False, remedy, required=False)
    own = "to a host of its own" if reports_free_pages() else "no"
    return [
        Check("reports its free pages", own, None),
        Check("transparent huge pages", _chosen(_THP / "enabled"), None),
        Check("huge pages of shmem", _chosen(_THP / "shmem_enabled"), None),
        collapse,
    ]


def _programs() -> list[Check]:
    checks = []
    packages = {"linux.uml": "user-mode-linux", "busybox": "busybox-static"}
    for program, package in packages.items():
        path = shutil.which(program)
        remedy = f"optional: apt-get install {package}, only for `guest uml`"
        checks.append(Check(program, path or "not found", bool(path), remedy, required=False))
    return checks


def _try_memfd() -> str:
    os.close(os.memfd_create("probe", os.MFD_CLOEXEC))
    return "works"


def _try_eventfd() -> str:
    descriptor = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        os.eventfd_read(descriptor)
    finally:
        os.close(descriptor)
    return "works"


def _try_pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return "works"


def _try_punch_hole() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    descriptor = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, b"\1" * _PROBE_BYTES)
        before = os.fstat(descriptor).st_blocks
        if libc.fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, 0, _PROBE_BYTES) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        after = os.fstat(descriptor).st_blocks
    finally:
        os.close(descriptor)
    if after != 0 or before * 512 < _PROBE_BYTES:
        raise OSError(f"st_blocks went from {before} to {after}, and should have fallen to 0")
    return f"works: st_blocks {before} -> {after}"


def _try_collapse() -> str:
    """Touch one page of a huge page's range and have the kernel make it a huge page.

    The range must begin at a multiple of 2 MiB, which no mapping of Python's promises: a larger
    one is reserved, and the memfd mapped over its aligned part.  Ending the one ends both.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    descriptor = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, _HUGE_PAGE_BYTES)
        with mmap.mmap(-1, 2 * _HUGE_PAGE_BYTES) as reserved:
            start = ctypes.addressof(ctypes.c_char.from_buffer(reserved))
            aligned = -(-start // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
            protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
            mapped = libc.mmap(aligned, _HUGE_PAGE_BYTES, protection, flags, descriptor, 0)
            if mapped != aligned:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            ctypes.memset(aligned, 1, 1)
            if libc.madvise(aligned, _HUGE_PAGE_BYTES, _MADV_COLLAPSE) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
    return "works"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in KiB, empty where there is none."""
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}


def _control_group_limits() -> list[int]:
    """What each control group above this process leaves it, version 2; empty without any."""
    own = next((g[3:] for g in _read("/proc/self/cgroup").split("\n") if g.startswith("0::")), "")
    folder, limits = Path("/sys/fs/cgroup") / own.strip("/"), []
    while folder.is_relative_to("/sys/fs/cgroup"):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdecimal() and used.isdecimal():
            limits.append(max(0, int(limit) - int(used)))
        folder = folder.parent
    return limits


def _cpu_model() -> str:
    lines = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    models = (value.strip() for key, _, value in lines if key.strip() in ("model name", "Model"))
    return next(models, platform.machine())


def _chosen(path: Path) -> str:
    """The word in brackets of a kernel setting such as `always [madvise] never`."""
    text = _read(path).strip()
    return text.partition("[")[2].partition("]")[0] or text or "not there"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
